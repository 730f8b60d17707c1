/** What is known of each token of one completion, as channels that can colour it. */
import { surrogate, type Band } from "../../math/clip";
import type { Run, TokenRow } from "../../types";

export interface Channel {
  key: string;
  name: string;
  /** Definition and unit. */
  help: string;
  unit: string;
  values: readonly (number | null)[];
}

export type Explain = Run["explain"];

/** ε of this step where its ratios say it, else of the config; null where nothing is clipped or one side is open. */
export function bandOf(explain: Explain, epsilon: readonly (number | null)[] | null): Band | null {
  const [low, high] = epsilon ?? [explain.eps_low, explain.eps_high];
  return typeof low === "number" && typeof high === "number" ? { low, high } : null;
}

/** Whether PPO's min(ρA, clip(ρ)·A) of single tokens is what the run maximised: then it can be computed here. */
export function clipsTokens(explain: Explain): boolean {
  return explain.surrogate === "ClippedRatio" && explain.level === "token";
}

/** Surprises δ_t = r_t + γV_{t+1} − V_t, solved from Â_t = δ_t + γλÂ_{t+1} with Â = return − value. */
export function deltas(row: TokenRow, gamma: number, lam: number): number[] | null {
  if (!row.value || !row.return) return null;
  const advantages = row.return.map((target, t) => target - row.value![t]!);
  return advantages.map((advantage, t) => advantage - gamma * lam * (advantages[t + 1] ?? 0));
}

/** log π_θ − log π_old of each token at one pass over the row. */
export function logRatios(row: TokenRow, pass: number): number[] | null {
  const now = row.lp_new?.[pass];
  return now && row.lp_old ? now.map((lp, t) => lp - row.lp_old![t]!) : null;
}

export function channels(row: TokenRow, pass: number, explain: Explain, band: Band | null): Channel[] {
  const differences = (a: readonly number[] | null | undefined, b: readonly number[] | null | undefined) => (a && b ? a.map((x, t) => x - b[t]!) : null);
  const ratios = logRatios(row, pass);
  const delta = typeof explain.gamma === "number" && typeof explain.lam === "number" ? deltas(row, explain.gamma, explain.lam) : null;
  const objective = ratios && row.advantage && band && clipsTokens(explain) ? ratios.map((log, t) => surrogate(Math.exp(log), row.advantage![t]!, band).objective) : null;
  const found: [string, string, string, string, readonly number[] | null | undefined][] = [
    ["advantage", "advantage", "Â: how much better than expected; what the gradient is weighted with", "", row.advantage],
    ["ratio", "log ρ", "log π_θ − log π_old at the pass shown, before its gradient", "nats", ratios],
    ["kl", "KL to reference", "log π_old − log π_ref of the token sampled: its mean is the KL", "nats", differences(row.lp_old, row.lp_ref)],
    ["entropy", "entropy", "spread of the policy's next token at the row's first pass", "nats", row.entropy],
    ["mismatch", "mismatch", "log π_old − log μ: trainer against sampler; 0 where both compute alike", "nats", differences(row.lp_old, row.lp_sampler)],
    ["value", "value V", "what the critic expected to come", "", row.value],
    ["delta", "surprise δ", "δ = r + γV′ − V: what this token brought beyond what the critic expected", "", delta],
    ["objective", "objective", "min(ρA, clip(ρ)·A) of the token: what is maximised", "", objective],
    ["logp", "log-prob", "log π_θ of the token at the pass shown", "nats", row.lp_new?.[pass] ?? row.lp_sampler],
  ];
  return found.flatMap(([key, name, help, unit, values]) => (values && values.length === row.text.length ? [{ key, name, help, unit, values }] : []));
}

/** The q-quantile with linear interpolation between neighbours. Raises nothing: null where there are no numbers. */
export function quantile(values: readonly (number | null)[], q: number): number | null {
  const sorted = values.filter((value): value is number => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const place = q * (sorted.length - 1);
  const below = Math.floor(place);
  const [low, high] = [sorted[below]!, sorted[Math.min(below + 1, sorted.length - 1)]!];
  return low + (place - below) * (high - low);
}

/** The number at full colour: the larger of the 2 % and 98 % quantiles' sizes, so that single outliers fade nothing else out. */
export function limit(values: readonly (number | null)[]): number {
  return Math.max(Math.abs(quantile(values, 0.02) ?? 0), Math.abs(quantile(values, 0.98) ?? 0));
}

/** −1 (full orange) over 0 to 1 (full blue). */
export function shade(value: number | null, full: number): number {
  if (value === null || !Number.isFinite(value) || full === 0) return 0;
  return Math.min(Math.max(value / full, -1), 1);
}
