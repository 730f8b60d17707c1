/** Dead groups: how many there are, and how many there should be if prompts are answered right as often as they seem to be. */

export interface Tally {
  /** Answers of the group that are right. */
  right: number;
  /** Scored answers of the group. */
  size: number;
}

/** How hard the prompts are: p is Beta distributed with this mean; `alike` is 1/(a + b + 1), 0 where all share one p. */
export interface Difficulty {
  p: number;
  /** Correlation of two answers to one prompt, from 0 to 1. */
  alike: number;
}

/** From the answers of several prompts: the mean, and the analysis-of-variance estimate of the intra-class correlation.
 *
 * One prompt, or answers that differ between prompts no more than coins would, give `alike` 0.
 * Reference: Ridout, Demétrio and Firth, "Estimating intraclass correlation for binary data", 1999.
 */
export function difficulty(tallies: readonly Tally[]): Difficulty {
  const used = tallies.filter(({ size }) => size > 0);
  const sum = (of: (tally: Tally) => number) => used.reduce((total, tally) => total + of(tally), 0);
  const answers = sum(({ size }) => size);
  const p = sum(({ right }) => right) / answers;
  const within = answers - used.length;
  if (used.length < 2 || within <= 0 || p <= 0 || p >= 1) return { p, alike: 0 };
  const between = sum(({ right, size }) => size * (right / size - p) ** 2) / (used.length - 1);
  const inside = sum(({ right, size }) => right * (1 - right / size)) / within;
  const size = (answers - sum((tally) => tally.size ** 2) / answers) / (used.length - 1);
  const alike = (between - inside) / (between + (size - 1) * inside);
  return { p, alike: Math.min(Math.max(alike, 0), 1) };
}

/** Chance that G fresh answers are all right or all wrong: p^G + (1 − p)^G, averaged over what each prompt's p may be.
 *
 * A prompt's own few answers do not say that p is 0 or 1: its p is Beta(a + right, b + wrong), with a and b of the batch.
 */
export function expectedDead(tallies: readonly Tally[], size: (tally: Tally) => number, { p, alike } = difficulty(tallies)): number {
  const chances = tallies.filter((tally) => tally.size > 0).map((tally) => chance(tally, size(tally), p, alike));
  return chances.reduce((sum, value) => sum + value, 0) / chances.length;
}

function chance({ right, size }: Tally, fresh: number, p: number, alike: number): number {
  if (alike === 0) return p ** fresh + (1 - p) ** fresh;
  if (alike === 1) return 1;
  const total = 1 / alike - 1;
  const [a, b] = [total * p + right, total * (1 - p) + size - right];
  return rising(a, a + b, fresh) + rising(b, a + b, fresh);
}

/** E[p^n] of Beta(a, total − a). */
function rising(a: number, total: number, n: number): number {
  let product = 1;
  for (let i = 0; i < n; i++) product *= (a + i) / (total + i);
  return product;
}

export type Fate = "alive" | "all wrong" | "all right" | "unscored";

export interface Spent {
  groups: number;
  /** null where the tokens of one are not known. */
  tokens: number | null;
}

/** Whether a group gives a gradient. Equal rewards are all right where they are above `threshold`, as the run's own metrics count with 0. */
export function fate(rewards: readonly number[], threshold = 0): Fate {
  if (rewards.length === 0) return "unscored";
  if (Math.max(...rewards) > Math.min(...rewards)) return "alive";
  return rewards[0]! > threshold ? "all right" : "all wrong";
}

/** Groups and tokens of each fate. */
export function meter(groups: readonly { fate: Fate; tokens: number | null }[]): Record<Fate, Spent> {
  const found: Record<Fate, Spent> = { alive: none(), "all wrong": none(), "all right": none(), unscored: none() };
  for (const group of groups) {
    found[group.fate].groups += 1;
    found[group.fate].tokens = plus(found[group.fate].tokens, group.tokens);
  }
  return found;
}

/** null, where one of them is. */
export function plus(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a + b;
}

function none(): Spent {
  return { groups: 0, tokens: 0 };
}
