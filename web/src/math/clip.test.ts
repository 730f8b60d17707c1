import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/clip.json";
import { clipsFrom, mass, region, side, splitsBin, surrogate } from "./clip";

test.each(golden)("what oneloop computes: $inputs", ({ inputs, expected }) => {
  const found = surrogate(Math.exp(inputs.log_ratio), inputs.advantage, inputs);
  // a number of 1e8 has no six decimals: 1e-6 of its size
  expect(Math.abs(found.objective - expected.objective)).toBeLessThan(1e-6 * Math.max(1, Math.abs(expected.objective)));
  expect(found.slope).toBeCloseTo(expected.slope, 6);
  expect(found.flat).toBe(expected.flat);
});

test("the trust region and where the clip acts", () => {
  expect(region({ low: 0.2, high: 0.28 })).toEqual([0.8, 1.28]);
  expect(region({ low: 5, high: 100 })).toEqual([0, 101]);
  expect(clipsFrom(1, { low: 0.2, high: 0.28 })).toEqual({ sign: ">", ratio: 1.28 });
  expect(clipsFrom(-1, { low: 0.2, high: 0.28 })).toEqual({ sign: "<", ratio: 0.8 });
  expect(clipsFrom(-1, { low: 1, high: 1 })).toBeNull();
  expect(clipsFrom(0, { low: 0.2, high: 0.2 })).toBeNull();
});

test("on the bounds themselves the gradient lives", () => {
  const band = { low: 0.2, high: 0.2 };
  expect(surrogate(1.2, 1, band).flat).toBe(false);
  expect(surrogate(0.8, -1, band).flat).toBe(false);
  expect([side(1.2, band), side(0.8, band), side(1.21, band), side(0.79, band)]).toEqual(["inside", "inside", "above", "below"]);
});

// 0, then 0.50 to 1.50 by 0.01, then ∞
const EDGES = [0, ...Array.from({ length: 101 }, (_, i) => Number((0.5 + i / 100).toFixed(2))), null];

function counts(at: Record<number, number>): number[] {
  return EDGES.slice(0, -1).map((edge) => at[edge!] ?? 0);
}

test("mass of a histogram on each side", () => {
  const found = counts({ 0: 1, 0.79: 2, 0.8: 4, 1: 8, 1.19: 16, 1.2: 32, 1.5: 64 });
  expect(mass(EDGES, found, { low: 0.2, high: 0.2 })).toEqual({ below: 3, inside: 28, above: 96 });
  expect(mass(EDGES, found, { low: 0.2, high: 0.28 })).toEqual({ below: 3, inside: 60, above: 64 });
});

test("an untouched policy is inside even where the region is a point", () => {
  expect(mass(EDGES, counts({ 0.98: 4, 0.99: 1, 1: 7, 1.01: 2 }), { low: 0, high: 0 })).toEqual({ below: 4, inside: 8, above: 2 });
});

test("a bound between two edges is told", () => {
  expect(splitsBin(EDGES, { low: 0.2, high: 0.28 })).toBe(false);
  expect(splitsBin(EDGES, { low: 0.2, high: 0.281 })).toBe(true);
  expect(splitsBin(EDGES, { low: 0.7, high: 0.2 })).toBe(true);
  expect(splitsBin(EDGES, { low: 1, high: 0.2 })).toBe(false);
});
