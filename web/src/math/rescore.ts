/** The gradient that each token of a recorded batch would get under another objective. */
import { LOG_RATIO_BOUND, surrogate } from "./clip";
import { groupAdvantages } from "./groups";
import { tokenWeights, type Aggregate } from "./length";

/** recorded: what the run learned from. std, none: from the rewards of the group, with or without its std. */
export type Advantage = "recorded" | "std" | "none";

export interface Rule {
  advantage: Advantage;
  low: number;
  high: number;
  /** Weight of the k3 estimate of KL(π_θ ‖ π_ref) in the loss; 0 leaves it out. */
  beta: number;
  aggregate: Aggregate;
  /** L of the aggregate "fixed". */
  budget: number;
  /** Truncated answers give no loss, although they count in their group's mean. */
  mask: boolean;
}

export interface Scored {
  group: number;
  reward: number | null;
  truncated: boolean;
  /** Per trained token, as recorded. */
  advantage: readonly number[];
  /** log π_θ − log π_old. */
  logRatio: readonly number[];
  /** log π_old − log π_ref; null without a reference. */
  refGap: readonly number[] | null;
}

export type Method = "ppo" | "grpo" | "dapo" | "dr_grpo";

/** oneloop's own values of these methods, but for the length budget, which is the run's. */
export function preset(method: Method, budget: number): Rule {
  const grpo: Rule = { advantage: "std", low: 0.2, high: 0.2, beta: 0.04, aggregate: "sequence", budget, mask: false };
  const changes: Record<Method, Partial<Rule>> = {
    ppo: { advantage: "recorded", beta: 0, aggregate: "token" },
    grpo: {},
    dapo: { high: 0.28, beta: 0, aggregate: "token", mask: true },
    dr_grpo: { advantage: "none", beta: 0, aggregate: "fixed" },
  };
  return { ...grpo, ...changes[method] };
}

/** −∂L/∂log π_θ of each token: above 0 the step makes the token likelier. L is that of one optimizer step over the whole batch. */
export function tokenGradients(rows: readonly Scored[], rule: Rule): number[][] {
  const counts = rows.map((row) => row.reward !== null && !(rule.mask && row.truncated));
  const weights = tokenWeights(rows.map((row, i) => (counts[i] ? row.logRatio.length : 0)), rule.aggregate, rule.budget);
  const credit = rule.advantage === "recorded" ? null : credits(rows, rule.advantage);
  return rows.map((row, i) =>
    row.logRatio.map((logRatio, t) => {
      if (!counts[i]) return 0;
      const ratio = Math.exp(logRatio);
      const push = surrogate(ratio, credit ? credit[i]! : row.advantage[t]!, rule).slope * ratio;
      const pull = row.refGap && rule.beta ? rule.beta * klSlope(logRatio + row.refGap[t]!) : 0;
      return weights[i]! * (push - pull);
    }),
  );
}

/** d/dx of k3 = e^(−x) − 1 + x, which is constant below the bound. */
function klSlope(x: number): number {
  return x < -LOG_RATIO_BOUND ? 0 : -Math.expm1(-x);
}

function credits(rows: readonly Scored[], advantage: "std" | "none"): number[] {
  const members = new Map<number, number[]>();
  rows.forEach((row, i) => row.reward !== null && members.set(row.group, [...(members.get(row.group) ?? []), i]));
  const out = rows.map(() => 0);
  for (const places of members.values()) {
    const [found] = groupAdvantages([places.map((i) => rows[i]!.reward!)], advantage === "std" ? "group" : "none", 0);
    places.forEach((i, k) => (out[i] = found![k]!));
  }
  return out;
}

/** Cosine of the angle between two gradients in the space of the tokens' log-probabilities; null where one is 0. */
export function cosine(a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number | null {
  const [x, y] = [a.flat(), b.flat()];
  const [xy, xx, yy] = x.reduce(([xy, xx, yy], value, i) => [xy + value * y[i]!, xx + value * value, yy + y[i]! * y[i]!], [0, 0, 0] as [number, number, number]);
  return xx > 0 && yy > 0 ? xy / (Math.sqrt(xx) * Math.sqrt(yy)) : null;
}
