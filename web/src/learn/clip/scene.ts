/** What the plot and the tables of the clip page are drawn from. */
import type { Band } from "../../math/clip";
import type { Ratios, Run } from "../../types";

/** ε of a side that is not cut. */
export const OPEN = 100;

/** The ratios of one inner update of a run, by the sign of the advantage. */
export interface Histogram {
  edges: readonly (number | null)[];
  positive: readonly number[];
  negative: readonly number[];
  zero: readonly number[];
}

export interface Scene {
  band: Band;
  advantage: 1 | -1;
  ratio: number;
  histogram: Histogram | null;
}

export function total(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Share of the tokens with ρ in [0.99, 1.01): the policy has not moved for them. */
export function untouched({ edges, positive, negative, zero }: Histogram): number {
  const all = [positive, negative, zero];
  const near = edges.flatMap((edge, i) => (edge === 0.99 || edge === 1 ? all.map((counts) => counts[i] ?? 0) : []));
  return total(near) / Math.max(1, total(all.map(total)));
}

/** The run's own trust region; an open side is drawn as a very wide one. */
export function bandOf(epsilon: Ratios["epsilon"]): Band {
  return { low: epsilon?.[0] ?? OPEN, high: epsilon?.[1] ?? OPEN };
}

/** What about this run is not as the drawing has it: sentences. */
export function differs(explain: Run["explain"], ratios: Ratios): string[] {
  const { surrogate, level, dual } = explain;
  const out = [];
  if (surrogate === "ClippedWeight") out.push("This run's objective (CISPO) clips the weight of a token and never its gradient: where the line is flat its gradient is alive.");
  else if (ratios.epsilon === null || (ratios.epsilon[0] === null && ratios.epsilon[1] === null)) out.push("This run's objective has no clip: the trust region shown is one it could have had.");
  if (level === "sequence") out.push("This run clips one ratio per answer; the bars are those of single tokens.");
  if (typeof dual === "number") out.push(`This run also has a dual clip: for A < 0 the gradient is 0 above ρ = ${dual} as well, which is not drawn.`);
  return out;
}

/** Why the ratios lie where they do. `update` counts from 0. */
export function why(histogram: Histogram, update: number, updates: number): string {
  const still = untouched(histogram);
  const share = `${(100 * still).toFixed(1)} %`;
  if (updates === 1 && still > 0.99)
    return "This run makes one update per batch (K = 1). Its loss is computed before the policy moves: π_θ is π_old, so all mass is at ρ = 1 and the clip cannot act. A second update on the same batch (epochs = 2) makes it act.";
  if (update === 0 && still > 0.99)
    return "The first inner update of a batch: the policy has not moved since π_old was taken, so all mass is at ρ = 1. Go to a later update and watch ρ spread.";
  if (update === 0)
    return `No update was made on this batch yet, and still only ${share} of the tokens have ρ within 0.01 of 1: π_old is not what this policy computes. Look at the mismatch between sampler and trainer.`;
  return `After ${update} ${update === 1 ? "update" : "updates"} on this batch ${share} of the tokens still have ρ within 0.01 of 1.`;
}
