/** A recorded step as the objectives see it, and the objectives in words. */
import { preset, type Advantage, type Method, type Rule, type Scored } from "../../math/rescore";
import type { RatioRow, Ratios, RolloutRow, Rollouts } from "../../types";

export const METHODS: readonly { value: Method; text: string; code: string; aggregate: string }[] = [
  { value: "ppo", text: "PPO", code: "value_ppo", aggregate: "token_mean" },
  { value: "grpo", text: "GRPO", code: "value_grpo", aggregate: "sequence_mean" },
  { value: "dapo", text: "DAPO", code: "value_dapo", aggregate: "token_mean" },
  { value: "dr_grpo", text: "Dr. GRPO", code: "value_dr_grpo", aggregate: "fixed_length" },
];

export function nameOf(method: Method): string {
  return METHODS.find(({ value }) => value === method)!.text;
}

export interface Rescored extends Scored {
  sample: number;
  row: RolloutRow | null;
}

/** Rows with their ratios at their own `pass` of the step, counted from 0; rows without that pass are left out, and rows with a number that was not finite.
 *
 * A row that no pass was spent on, in a step of one update, has ratio 1: the policy has not moved yet.
 */
export function batch(ratios: Ratios, rollouts: Rollouts | null, pass: number): Rescored[] {
  const known = new Map((rollouts?.rows ?? []).map((row) => [`${row.group}.${row.sample}`, row]));
  return (ratios.rows ?? []).flatMap((ratio) => {
    const logRatio = ratio.log_ratio?.[pass] ?? (ratios.updates <= 1 ? ratio.advantage.map(() => 0) : null);
    if (logRatio === null || logRatio.length === 0) return [];
    if (![logRatio, ratio.advantage, ratio.ref_gap ?? []].every((values) => values.every(Number.isFinite))) return [];
    const row = known.get(`${ratio.group}.${ratio.sample}`) ?? null;
    const { group, sample, truncated, advantage } = ratio;
    return [{ group, sample, truncated, advantage, logRatio, refGap: ratio.ref_gap, reward: row?.reward ?? null, row }];
  });
}

/** How many passes each row had. */
export function passes(rows: readonly RatioRow[]): number {
  return Math.max(0, ...rows.map((row) => row.update.length));
}

export interface Term {
  name: string;
  text: string;
  help: string;
}

const ADVANTAGES: Record<Advantage, string> = {
  recorded: "Âᵢₜ as the run recorded it",
  std: "Âᵢ = (Rᵢ − mean R)/(std R + 10⁻⁶)",
  none: "Âᵢ = Rᵢ − mean R",
};

const number = (value: number) => String(Number(value.toPrecision(6)));

/** The objective term by term, in the same order for all. */
export function terms(rule: Rule): Term[] {
  const weight = { token: "w = 1/Σ len", sequence: "w = 1/(N·len)", fixed: `w = 1/(N·${rule.budget})` }[rule.aggregate];
  return [
    { name: "advantage", text: ADVANTAGES[rule.advantage], help: "PPO's come from its critic (GAE) and hold its KL penalty; the others compare answers to one prompt" },
    { name: "clip", text: `min(ρÂ, clip(ρ, ${number(Math.max(1 - rule.low, 0))}, ${number(1 + rule.high)})·Â)`, help: "outside the band the gradient is 0 where the step would go further out" },
    { name: "KL", text: rule.beta ? `+ ${number(rule.beta)}·(e⁻ˣ − 1 + x)` : "none in the loss", help: "k3 estimate of KL(π_θ ‖ π_ref), x = log π_θ − log π_ref" },
    { name: "weight", text: weight, help: "what the loss of each token is multiplied with; N answers in the step" },
    { name: "mask", text: rule.mask ? "truncated answers give no loss" : "all answers count", help: "overlong filtering; the rewards of masked answers still count in their group's mean" },
  ];
}

/** A preset with what the address changes in it. */
export function edited(method: Method, budget: number, text: (name: string) => string): Rule {
  const rule = preset(method, budget);
  const size = (name: string, otherwise: number, most: number) => {
    const value = text(name) === "" ? NaN : Number(text(name));
    return Number.isFinite(value) ? Math.min(Math.max(value, 0), most) : otherwise;
  };
  const one = <T extends string>(name: string, options: readonly T[], otherwise: T) => options.find((option) => option === text(name)) ?? otherwise;
  return {
    ...rule,
    low: size("low", rule.low, 1),
    high: size("high", rule.high, 1e6),
    beta: size("beta", rule.beta, 1e6),
    advantage: one("scale", ["recorded", "std", "none"], rule.advantage),
    aggregate: one("aggregate", ["token", "sequence", "fixed"], rule.aggregate),
    mask: text("mask") === "" ? rule.mask : text("mask") === "yes",
  };
}

export function changed(rule: Rule, method: Method): boolean {
  const own = preset(method, rule.budget);
  return (Object.keys(own) as (keyof Rule)[]).some((name) => own[name] !== rule[name]);
}
