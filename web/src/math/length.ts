/** What a token weighs under each rule of aggregation, and how lengths and rewards go together. */

export type Aggregate = "token" | "sequence" | "fixed";

/** The weight of each token of each answer of a step; `budget` is the constant length L of the rule "fixed".
 *
 * token: 1/Σ len (DAPO). sequence: 1/(N·len) (GRPO). fixed: 1/(N·L) (Dr. GRPO). N counts the answers with a token. An
 * answer without one weighs nothing.
 */
export function tokenWeights(lengths: readonly number[], rule: Aggregate, budget: number): number[] {
  const count = Math.max(lengths.filter((length) => length > 0).length, 1);
  const total = Math.max(lengths.reduce((sum, length) => sum + length, 0), 1);
  return lengths.map((length) => {
    if (length === 0) return 0;
    return 1 / (rule === "token" ? total : count * (rule === "sequence" ? length : budget));
  });
}

export interface Correlation {
  r: number;
  n: number;
  /** 95 % interval by Fisher's transformation. */
  low: number;
  high: number;
}

/** 97.5 % of a standard normal distribution lie below. */
const Z = 1.959963984540054;

/** Pearson's correlation; null where one of the two does not vary, or there are fewer than four points. */
export function correlation(x: readonly number[], y: readonly number[]): Correlation | null {
  const n = x.length;
  if (n < 4) return null;
  const [dx, dy] = [centred(x), centred(y)];
  const [xx, yy] = [dot(dx, dx), dot(dy, dy)];
  if (xx === 0 || yy === 0) return null;
  const r = Math.min(Math.max(dot(dx, dy) / Math.sqrt(xx * yy), -1), 1);
  const half = Z / Math.sqrt(n - 3);
  return { r, n, low: Math.tanh(Math.atanh(r) - half), high: Math.tanh(Math.atanh(r) + half) };
}

function centred(values: readonly number[]): number[] {
  if (values.every((value) => value === values[0])) return values.map(() => 0);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => value - mean);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}
