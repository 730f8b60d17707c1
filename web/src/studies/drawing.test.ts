import { expect, test } from "vitest";
import { band, extent, labelled, marks, scaled, wrapped } from "./drawing";

test("equal factors lie equally far apart, on both sides of 0", () => {
  const log = scaled("log", [0.01, 100], [0, 4]);
  expect([0.01, 0.1, 1, 10, 100].map(log).map((place) => Number(place.toFixed(9)))).toEqual([0, 1, 2, 3, 4]);
  const both = scaled("symlog", [-9, 9], [-1, 1]);
  expect([-9, 0, 9].map((value) => Number(both(value).toFixed(9)) + 0)).toEqual([-1, 0, 1]);
  expect(both(99) - both(9)).toBeCloseTo(both(9) - both(0));
  expect(both.invert(both(-4))).toBeCloseTo(-4);
});

test("a domain has room, and a logarithm's has no 0", () => {
  expect(extent("linear", [0, 10])).toEqual([-0.5, 10.5]);
  expect(extent("linear", [3, 3])).toEqual([0, 6]);
  const [least, most] = extent("log", [-1, 0, 1, 100]);
  expect(least).toBeGreaterThan(0.5);
  expect(most).toBeLessThan(200);
  expect(extent("log", [-1, 0])).toEqual([0.1, 1]);
});

test("ticks are round and within", () => {
  expect(marks("linear", [0, 1])).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
  expect(marks("log", [0.02, 30])).toEqual([0.1, 1, 10]);
  expect(marks("log", [0.9, 6])).toEqual([1, 2, 5]);
  expect(marks("symlog", [-2, 12])).toEqual([-1, 0, 1, 10]);
});

test("numbers at the axis do not stand on each other", () => {
  const scale = scaled("linear", [0, 100], [0, 300]);
  expect(labelled([0, 1, 2, 10, 50, 60], scale, 30)).toEqual([0, 10, 50, 60]);
});

test("a band runs along its upper edge and back, and stays inside", () => {
  const x = scaled("linear", [0, 1], [0, 10]);
  const y = scaled("log", [1, 100], [20, 0]);
  expect(band([{ x: 0, low: -5, high: 10 }, { x: 1, low: 1, high: 1000 }], x, y)).toBe("0.0,10.0 10.0,0.0 10.0,20.0 0.0,20.0");
});

test("a long name is broken at its words", () => {
  expect(wrapped("best of n, heavy-tailed error", 14)).toEqual(["best of n", "heavy-tailed", "error"]);
  expect(wrapped("best of n, heavy-tailed error", 30)).toEqual(["best of n", "heavy-tailed error"]);
  expect(wrapped("α", 1)).toEqual(["α"]);
  expect(wrapped("unbreakable", 3)).toEqual(["unbreakable"]);
});
