import { expect, test } from "vitest";
import { byScale, curve, type Curve } from "./pictures";

const line = (name: string, place: number, steps: number, low: number, high: number): Curve => ({ name, place, x: [1, steps], y: [low, high] });

test("lines of other scales get a picture of their own", () => {
  // the loss of SFT falls from 5 over 220 steps; beside it the others would be flat and short
  const lines = [line("sft", 0, 220, 5, 0.1), line("rm", 1, 60, 0.7, 0.05), line("dpo", 2, 40, 0.7, 0.4), line("grpo", 3, 25, 0, 0.014), line("flat", 4, 25, 0.01, 0.01)];
  expect(byScale(lines).map((picture) => picture.map((one) => one.name))).toEqual([["sft"], ["rm", "dpo", "flat"], ["grpo"]]);
});

test("steps count from 1, and what was measured before training stands at 0", () => {
  const evaluations = [{ done: 0, "eval/reward": 0.25 }, { done: 8, "eval/reward": 0.75 }];
  expect(curve("run", 0, "eval/reward", { x: [7], y: [0.75] }, evaluations)).toEqual({ name: "run", place: 0, x: [0, 8], y: [0.25, 0.75] });
  expect(curve("run", 0, "loss", { x: [0, 1, 2], y: [1, null, 3] }, [])).toMatchObject({ x: [1, 3], y: [1, 3] });
  expect(curve("run", 0, "loss", { x: [0], y: [null] }, [])).toBeNull();
  expect(curve("run", 0, "loss", undefined, [])).toBeNull();
});
