import { expect, test } from "vitest";
import type { RunLine, Series } from "../types";
import { aligned, called, metrics } from "./curves";

const series = (x: number[]): Series => ({ name: "reward", x, y: x, low: null, high: null, n: x.length });

test("steps are counted from 1, time from each run's own start, tokens as they are", () => {
  expect(aligned(series([0, 4, 9]), "step")).toEqual([1, 5, 10]);
  expect(aligned(series([1_700_000_000, 1_700_000_060, 1_700_000_150]), "time")).toEqual([0, 1, 2.5]);
  expect(aligned(series([105, 205]), "tokens")).toEqual([105, 205]);
  expect(aligned(series([]), "time")).toEqual([]);
});

test("metrics that matter stand first, the rest by name", () => {
  expect(metrics([{ metrics: ["zeta", "loss", "alpha"] }, { metrics: ["reward", "loss"] }])).toEqual(["reward", "loss", "alpha", "zeta"]);
});

test("runs of one name are told apart", () => {
  const [a, b, c] = ["grpo", "grpo", "ppo"].map((name, i) => ({ name, id: `${name}-${i}` }) as RunLine);
  expect([a, b, c].map((run) => called(run!, [a!, b!, c!]))).toEqual(["grpo (grpo-0)", "grpo (grpo-1)", "ppo"]);
});
