import { expect, test } from "vitest";
import type { RolloutRow } from "../../types";
import { bins, containing, holds, inSight, sorted } from "./view";

function row(at: number, reward: number | null, extra: Partial<RolloutRow> = {}): RolloutRow {
  return {
    row: at, group: at, sample: 0, prompt: `p${at}`, completion: "c", cut: false, rewards: { exact: reward }, reward, advantage: null,
    length: 3, stop: "eos", kept: true, answer: null, target: null, extras: {}, turns: null, episode: null, error: null, ...extra,
  };
}

test("few values have a bar each", () => {
  expect(bins([1, 0, 0, null, 0.5, 1, 0])).toEqual([
    { low: 0, high: 0, closed: true, count: 3 },
    { low: 0.5, high: 0.5, closed: true, count: 1 },
    { low: 1, high: 1, closed: true, count: 2 },
  ]);
  expect(bins([null, null])).toEqual([]);
});

test("every value lies in exactly one of many bins, and its count says so", () => {
  const values = Array.from({ length: 1000 }, (_, i) => Math.round(1e3 * Math.sin(i)) / 1e3);
  const found = bins(values);
  expect(found).toHaveLength(20);
  expect(found.reduce((sum, bin) => sum + bin.count, 0)).toBe(1000);
  for (const bin of found) expect(values.filter((value) => holds(bin, value))).toHaveLength(bin.count);
});

test("an order goes both ways, and rows without a value come last", () => {
  const rows = [row(0, 0.5), row(1, null), row(2, 1), row(3, 0.5)];
  const places = (order: string) => sorted(rows, order).map((one) => one.row);
  expect(places("")).toEqual([0, 1, 2, 3]);
  expect(places("reward")).toEqual([0, 3, 2, 1]);
  expect(places("-reward")).toEqual([2, 0, 3, 1]);
  expect(places("-reward:exact")).toEqual([2, 0, 3, 1]);
});

test("text is looked for in prompts and completions, whatever its case", () => {
  const rows = [row(0, 1, { completion: "The END" }), row(1, 1)];
  expect(containing(rows, "end").map((one) => one.row)).toEqual([0]);
  expect(containing(rows, "P1").map((one) => one.row)).toEqual([1]);
});

test("a long list draws only what is in sight", () => {
  expect(inSight(0, 400, 40, 10_000)).toEqual([0, 18]);
  expect(inSight(200_000, 400, 40, 10_000)).toEqual([4992, 5018]);
  expect(inSight(399_600, 400, 40, 10_000)).toEqual([9982, 10_000]);
});
