/** A step's groups with what the page says of each. */
import { groupsOf, type Group } from "../../learn/groups/scene";
import { fate, plus, type Fate, type Tally } from "../../math/dead";
import { mean, std } from "../../math/groups";
import type { RolloutRow, Rollouts, TokenTable } from "../../types";

export interface Judged {
  /** From 1, as the reader sees it. */
  number: number;
  group: Group;
  rows: readonly RolloutRow[];
  fate: Fate;
  mean: number;
  std: number;
  /** null where lengths were not recorded. */
  tokens: number | null;
  tally: Tally;
}

export function judged(rollouts: Rollouts, tokens: TokenTable | null, threshold: number): Judged[] {
  const rows = new Map<number, RolloutRow[]>();
  for (const row of rollouts.rows) rows.set(row.group, [...(rows.get(row.group) ?? []), row]);
  return groupsOf(rollouts, tokens).map((group, i) => {
    const [number, members] = [...rows][i]!;
    const rewards = group.answers.map((answer) => answer.reward);
    return {
      number: number + 1,
      group,
      rows: members,
      fate: fate(rewards, threshold),
      mean: rewards.length ? mean(rewards) : NaN,
      std: std(rewards, 0),
      tokens: members.map((row) => row.length).reduce(plus, 0),
      tally: { right: rewards.filter((reward) => reward > threshold).length, size: rewards.length },
    };
  });
}

export const ORDERS = ["number", "std", "mean", "tokens"] as const;
export type Order = (typeof ORDERS)[number];

/** By number upwards; by all else from the largest. */
export function sorted(groups: readonly Judged[], order: Order): Judged[] {
  const key = (group: Judged) => (Number.isFinite(group[order]) ? group[order]! : -Infinity);
  return [...groups].sort((a, b) => (order === "number" ? a.number - b.number : key(b) - key(a)));
}

/** The size that most groups have. */
export function usual(groups: readonly Judged[]): number {
  const counts = new Map<number, number>();
  for (const { tally } of groups) counts.set(tally.size, (counts.get(tally.size) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 1;
}
