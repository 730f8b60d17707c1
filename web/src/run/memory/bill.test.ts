import { expect, test } from "vitest";
import type { Plan } from "../../types";
import { changed, phases, stacks, whole } from "./bill";

const plan: Plan = {
  table: { policy: { weights: 100, gradients: 100, "KV cache": 30 }, critic: { weights: 50, gradients: 50 }, reference: { weights: 100 } },
  phases: [
    { name: "rollout", parts: { weights: 250, optimizer: 300, "KV cache": 30 } },
    { name: "update", parts: { weights: 250, optimizer: 300, "gradients and activations": 400, heap: 0 } },
  ],
  lengths: { prompt: 8, answer: 32, source: "given" },
};
const measured = [
  { step: 0, start_rss: 1000, peak_rss: 1900, "phase/rollout": 1500, "phase/update": 1900 },
  { step: 1, start_rss: 1000, peak_rss: 1950, "phase/rollout": 1580, "phase/update": 1950 },
];

test("phases are measured above what the process held before, at their worst step", () => {
  expect(phases(plan, measured).map(({ name, planned, measured: taken }) => [name, planned, taken])).toEqual([
    ["rollout", 580, 580],
    ["update", 950, 950],
  ]);
  expect(phases(plan, measured).map((line) => line.error)).toEqual([0, 0]);
  expect(whole(plan, measured)).toMatchObject({ planned: 950, measured: 950, error: 0 });
});

test("a plan that is a tenth too high has an error of +10 %", () => {
  const low = [{ step: 0, start_rss: 0, peak_rss: 500, "phase/update": 475 }];
  expect(phases(plan, low)[1]!.error).toBeCloseTo(1);
  expect(whole(plan, low).error).toBeCloseTo(0.9);
});

test("on a GPU nothing is taken off", () => {
  const gpu = [{ step: 0, start_rss: 1000, peak_rss: 1900, cuda_peak: 600, "phase/rollout": 580 }];
  expect(phases(plan, gpu)[0]).toMatchObject({ measured: 580, error: 0 });
  expect(whole(null, gpu)).toEqual({ name: "peak", parts: null, planned: null, measured: 600, error: null });
});

test("the largest part stands first, and parts of nothing are left out", () => {
  expect(phases(plan, [])[1]).toMatchObject({ measured: null, error: null, parts: [["gradients and activations", 400], ["optimizer", 300], ["weights", 250]] });
  expect(phases(null, [])).toEqual([]);
});

test("a model that is left out takes its whole bar along, and items keep their places", () => {
  const { items, models } = stacks(plan, new Set(["critic"]));
  expect(items).toEqual(["weights", "gradients", "KV cache"]);
  expect(models).toEqual([
    { name: "policy", sizes: [100, 100, 30], total: 230 },
    { name: "reference", sizes: [100, 0, 0], total: 100 },
  ]);
});

test("a changed setting brings a bill of its own", () => {
  const half = { flag: "--max-tokens 8", why: "more passes", table: { policy: { weights: 100 } }, phases: [{ name: "update", parts: { weights: 250, heap: 30 } }] };
  const wide: Plan = { ...plan, changes: [half] };
  expect(changed(wide, "--max-tokens 8")).toEqual({ bill: half, why: "more passes", peak: 280, difference: 280 - 950 });
  for (const one of [wide, plan]) expect(changed(one, "--lora 16")).toEqual({ bill: one, why: "", peak: 950, difference: 0 });
});
