/** Curves of several runs on one axis. */
import type { RunLine, Series } from "../types";

/** What is drawn first, in this order, where a run has it. */
export const FIRST = [
  "reward", "eval/reward", "rewards/accuracies", "eval/rewards/accuracies", "loss", "kl", "entropy", "completions/mean_length",
  "frac_reward_zero_std", "clip/gradient_zero", "grad_norm", "tokens_per_second",
] as const;
export const MOST_CHARTS = 8;

export type Axis = "step" | "tokens" | "time";

/** The metrics of several runs, those that are drawn first in front. */
export function metrics(runs: readonly { metrics: readonly string[] }[]): string[] {
  const all = new Set(runs.flatMap((run) => run.metrics));
  const first = FIRST.filter((name) => all.has(name));
  return [...first, ...[...all].filter((name) => !first.includes(name as never)).sort()];
}

/** Where a point stands for the reader: steps from 1, minutes from the run's first step, tokens from 0. */
export function aligned(series: Series, axis: Axis): number[] {
  if (axis === "step") return series.x.map((step) => step + 1);
  if (axis === "tokens") return [...series.x];
  const start = series.x[0] ?? 0;
  return series.x.map((time) => (time - start) / 60);
}

/** How a run is called beside others: its name, and its algorithm and seed where these tell it apart. */
export function called(run: RunLine, all: readonly RunLine[]): string {
  const same = all.filter((other) => other.name === run.name);
  return same.length > 1 ? `${run.name} (${run.id})` : run.name;
}
