/** Generalised advantage estimation, arXiv:1506.02438, eq. 16, over the action tokens of one response. */

export interface Credit {
  /** δ_t = r_t + γ V(s_(t+1)) − V(s_t). */
  deltas: number[];
  /** Â_t = δ_t + γλ Â_(t+1). */
  advantages: number[];
  /** What the critic learns: Â_t + V(s_t). */
  returns: number[];
}

/** `bootstrap` is V after the last action of a truncated response; a finished one has 0. */
export function gae(rewards: readonly number[], values: readonly number[], gamma: number, lam: number, bootstrap = 0): Credit {
  const deltas = rewards.map((reward, t) => reward + gamma * (values[t + 1] ?? bootstrap) - values[t]!);
  const advantages = new Array<number>(deltas.length);
  let carry = 0;
  for (let t = deltas.length - 1; t >= 0; t--) advantages[t] = carry = deltas[t]! + gamma * lam * carry;
  return { deltas, advantages, returns: advantages.map((advantage, t) => advantage + values[t]!) };
}

/** Added to the variance when whitening. */
const WHITEN_EPS = 1e-8;

/** (x − mean)/√(var + 1e-8) over all tokens of the batch, ddof 0; equal values give 0. */
export function whiten(values: readonly number[]): number[] {
  if (values.every((value) => value === values[0])) return values.map(() => 0);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return values.map((value) => (value - mean) / Math.sqrt(variance + WHITEN_EPS));
}
