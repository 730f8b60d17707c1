/** Seeded chance: the same seed gives the same run of a toy in every browser. */

export interface Random {
  /** Uniform in [0, 1). */
  (): number;
}

/** mulberry32: a 32-bit state, good enough for toys and small enough to read. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** An index, drawn with the given probabilities. */
export function draw(chance: Random, probabilities: readonly number[]): number {
  let rest = chance();
  for (let i = 0; i < probabilities.length - 1; i++) {
    rest -= probabilities[i]!;
    if (rest < 0) return i;
  }
  return probabilities.length - 1;
}

/** The numbers 0 … count − 1 in a drawn order (Fisher–Yates). */
export function shuffled(chance: Random, count: number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const other = Math.floor(chance() * (i + 1));
    [order[i], order[other]] = [order[other]!, order[i]!];
  }
  return order;
}
