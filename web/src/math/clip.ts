/** PPO's clipped surrogate of one token: min(ρA, clip(ρ, 1 − low, 1 + high)·A). The paper maximises it. */

/** ε of the trust region: ρ may go from 1 − low to 1 + high. */
export interface Band {
  low: number;
  high: number;
}

/** oneloop takes no gradient from a ratio outside e^±20. */
export const LOG_RATIO_BOUND = 20;

export interface Surrogate {
  /** ρA. */
  unclipped: number;
  /** clip(ρ)·A. */
  clipped: number;
  /** The smaller of the two. */
  objective: number;
  /** d objective / dρ: A, or 0 where the clip acts. */
  slope: number;
  /** Whether the clip made the gradient 0. */
  flat: boolean;
}

/** The trust region in ρ. A ratio is never below 0, so neither is its bound. */
export function region({ low, high }: Band): [number, number] {
  return [Math.max(1 - low, 0), 1 + high];
}

export function surrogate(ratio: number, advantage: number, band: Band): Surrogate {
  const [from, to] = region(band);
  const beyond = Math.abs(Math.log(ratio)) > LOG_RATIO_BOUND;
  const bounded = Math.min(Math.max(ratio, Math.exp(-LOG_RATIO_BOUND)), Math.exp(LOG_RATIO_BOUND));
  const unclipped = bounded * advantage;
  const clipped = Math.min(Math.max(bounded, from), to) * advantage;
  const flat = advantage !== 0 && (beyond || clipped < unclipped);
  return { unclipped, clipped, objective: Math.min(unclipped, clipped), slope: flat ? 0 : advantage, flat };
}

export type Side = "below" | "inside" | "above";

export function side(ratio: number, band: Band): Side {
  const [from, to] = region(band);
  return ratio < from ? "below" : ratio > to ? "above" : "inside";
}

/** Where the clip acts, for an advantage of this sign: `null` where it never does. */
export function clipsFrom(advantage: number, band: Band): { sign: "<" | ">"; ratio: number } | null {
  const [from, to] = region(band);
  if (advantage > 0) return { sign: ">", ratio: to };
  return advantage < 0 && from > 0 ? { sign: "<", ratio: from } : null;
}

/** Counts of a histogram on each side of the trust region. */
export type Mass = Record<Side, number>;

/** A bin reaches from its edge to the next one, which it does not hold; the last reaches to ∞.
 *
 * A bin across a bound of the region is counted by its middle. All mass of an untouched policy lies at ρ = 1, up to
 * rounding: the two bins that meet there count as inside even when ε is 0.
 */
export function mass(edges: readonly (number | null)[], counts: readonly number[], band: Band): Mass {
  const found: Mass = { below: 0, inside: 0, above: 0 };
  counts.forEach((count, i) => {
    const from = edges[i] ?? 0;
    const to = edges[i + 1];
    const middle = to === null || to === undefined ? from : (from + to) / 2;
    found[from === 1 || to === 1 ? "inside" : side(middle, band)] += count;
  });
  return found;
}

/** Whether a bound of the region lies within a bin, so that `mass` is not exact. */
export function splitsBin(edges: readonly (number | null)[], band: Band): boolean {
  return region(band).some((bound) => bound > 0 && !edges.some((edge) => edge !== null && Math.abs(edge - bound) < 1e-9));
}
