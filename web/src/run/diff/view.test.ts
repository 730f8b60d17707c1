import { expect, test } from "vitest";
import { preset } from "../../math/rescore";
import type { RatioRow, Ratios, RolloutRow } from "../../types";
import { batch, changed, edited, passes, terms } from "./view";

function ratio(sample: number, log_ratio: number[][]): RatioRow {
  return { group: 0, sample, truncated: false, update: log_ratio.map((_, i) => i), advantage: [1, 1], log_ratio, ref_gap: null, mismatch: null };
}
const step = { step: 0 };
const rows = [ratio(0, [[0.1, 0.2], [0.3, 0.4]]), ratio(1, [[0.5, 0.6]]), ratio(2, [])];
const ratios: Ratios = { ...step, updates: 2, epsilon: null, edges: [], positive: [], negative: [], zero: [], rows };
const rollouts = { ...step, columns: [], rows: [{ group: 0, sample: 1, reward: 0.5 } as RolloutRow] };

test("rows at a pass, with their rewards", () => {
  expect(passes(rows)).toBe(2);
  expect(batch(ratios, rollouts, 0).map((row) => [row.sample, row.reward, row.logRatio])).toEqual([[0, null, [0.1, 0.2]], [1, 0.5, [0.5, 0.6]]]);
  expect(batch(ratios, rollouts, 1).map((row) => row.sample)).toEqual([0]);
  expect(batch({ ...ratios, updates: 1 }, rollouts, 0).at(-1)!.logRatio).toEqual([0, 0]);
  expect(batch({ ...ratios, rows: [ratio(0, [[0.1, null as unknown as number]])] }, null, 0)).toEqual([]);
  expect(batch({ ...ratios, rows: null }, null, 0)).toEqual([]);
});

test("an address changes a preset, and nonsense in it does not", () => {
  const from = (query: string) => (name: string) => new URLSearchParams(query).get(name) ?? "";
  expect(edited("grpo", 8, from(""))).toEqual(preset("grpo", 8));
  expect(edited("grpo", 8, from("low=x&scale=y&aggregate=&mask="))).toEqual(preset("grpo", 8));
  const rule = edited("grpo", 8, from("low=7&high=0.28&beta=0&scale=none&aggregate=fixed&mask=yes"));
  expect(rule).toEqual({ advantage: "none", low: 1, high: 0.28, beta: 0, aggregate: "fixed", budget: 8, mask: true });
  expect([changed(rule, "grpo"), changed(preset("dapo", 8), "dapo")]).toEqual([true, false]);
});

test("the formulas of two methods differ in the terms their papers change", () => {
  const [grpo, dapo] = [terms(preset("grpo", 8)), terms(preset("dapo", 8))];
  expect(grpo.filter((term, i) => term.text !== dapo[i]!.text).map((term) => term.name)).toEqual(["clip", "KL", "weight", "mask"]);
  expect(dapo[1]!.text).toBe("min(ρÂ, clip(ρ, 0.8, 1.28)·Â)");
});
