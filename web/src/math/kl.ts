/** Log-softmax, and how far one distribution is from another. Nats. */

export function logSoftmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return logits.map((logit) => logit - top - total);
}

export function softmax(logits: readonly number[]): number[] {
  return logSoftmax(logits).map(Math.exp);
}

/** KL(π_θ ‖ π_ref) = Σ_v π_θ(v) (log π_θ(v) − log π_ref(v)). */
export function exactKl(logits: readonly number[], refLogits: readonly number[]): number {
  const ref = logSoftmax(refLogits);
  return logSoftmax(logits).reduce((sum, logp, v) => sum + Math.exp(logp) * (logp - ref[v]!), 0);
}

export type Estimator = "k1" | "k2" | "k3";

/** The estimate from one token drawn from π_θ; x = log π_θ − log π_ref. Only k2 and k3 are never below 0. */
export function klEstimate(x: number, estimator: Estimator): number {
  if (estimator === "k1") return x;
  if (estimator === "k2") return (x * x) / 2;
  const bounded = Math.max(x, -LOG_RATIO_BOUND);
  return Math.expm1(-bounded) + bounded;
}

/** Log-ratios are cut here before exp, as in oneloop. */
export const LOG_RATIO_BOUND = 20;
