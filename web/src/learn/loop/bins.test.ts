import { expect, test } from "vitest";
import { bins, rebinned } from "./bins";

const EDGES = [0, ...Array.from({ length: 101 }, (_, i) => Number((0.5 + i / 100).toFixed(2))), null];

test("ρ = 1 stands in the middle, and what lies outside in the outermost bins", () => {
  const counts = bins([1, 1, 0.1, 7]);
  expect([counts[20], counts[0], counts[40]]).toEqual([2, 1, 1]);
});

test("a recorded histogram keeps its counts, whatever is rounded", () => {
  const recorded = EDGES.slice(1).map(() => 0);
  [recorded[0], recorded[50], recorded[51], recorded[101]] = [3, 5, 7, 11];
  const counts = rebinned(EDGES, recorded);
  expect([counts[0], counts[20], counts[40]]).toEqual([3, 12, 11]);
});
