import { expect, test } from "vitest";
import type { Series } from "../../types";
import { append, smoothed } from "./append";
import { chartsOf, matching } from "./charts";

const reward: Series = { name: "reward", x: [0, 1], y: [0.5, 0.25], low: [0.25, 0], high: [0.75, 0.5], n: 2 };
const loss: Series = { name: "loss", x: [0], y: [2], low: null, high: null, n: 1 };

test("new lines are put behind the curves, with their band; lines that are there already are not", () => {
  const [first, second] = append([reward, loss], [
    { step: 1, reward: 9, loss: 3 },
    { step: 2, reward: 1, reward_std: 0.5, loss: null },
  ]);
  expect(first).toEqual({ name: "reward", x: [0, 1, 2], y: [0.5, 0.25, 1], low: [0.25, 0, 0.5], high: [0.75, 0.5, 1.5], n: 3 });
  expect(second).toEqual({ name: "loss", x: [0, 1], y: [2, 3], low: null, high: null, n: 2 });
});

test("smoothing keeps a level, follows a jump, and leaves gaps", () => {
  expect(smoothed([1, 1, null, 1], 0.9)).toEqual([1, 1, null, 1]);
  expect(smoothed([0, 1, 1], 0.5)).toEqual([0, 0.5, 0.75]);
});

test("eight charts, of what the run logs", () => {
  expect(chartsOf(["loss", "grad_norm", "logps/chosen"]).map((spec) => spec.title)).toEqual(["log-probs", "loss", "gradient norm"]);
  expect(chartsOf(["logps/chosen"])[0]!.names).toEqual(["logps/chosen"]);
  const all = ["reward", "kl", "entropy", "completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std", "clip/gradient_zero", "loss", "grad_norm"];
  expect(chartsOf(all)).toHaveLength(8);
});

test("a filter is a pattern, or plain text where it is none", () => {
  const names = ["reward", "kl", "a(b"];
  expect(matching(names, "^(Reward|KL)$")).toEqual(["reward", "kl"]);
  expect(matching(names, "a(")).toEqual(["a(b"]);
  expect(matching(names, "")).toEqual(names);
});
