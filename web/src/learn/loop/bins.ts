/** Histograms of ρ for the box of the updates. */

const BINS = 41;

/** Counts in 41 bins from 0.5 to 1.5, with ρ = 1 in the middle of one; what lies outside goes to the outermost. */
export function bins(ratios: readonly number[]): number[] {
  const counts = new Array<number>(BINS).fill(0);
  for (const ratio of ratios) counts[Math.min(Math.max(Math.floor((ratio - 0.5) * BINS), 0), BINS - 1)]! += 1;
  return counts;
}

/** The same from a recorded histogram, whose bins are finer. */
export function rebinned(edges: readonly (number | null)[], counts: readonly number[]): number[] {
  const out = new Array<number>(BINS).fill(0);
  counts.forEach((count, i) => {
    const [low, high] = [edges[i] ?? 0, edges[i + 1] ?? Infinity];
    const middle = i === 0 ? high : high === Infinity ? low : (low + high) / 2;
    out[Math.min(Math.max(Math.floor((middle - 0.5) * BINS), 0), BINS - 1)]! += count;
  });
  return out;
}
