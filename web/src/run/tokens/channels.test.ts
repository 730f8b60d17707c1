import { expect, test } from "vitest";
import type { TokenRow } from "../../types";
import { bandOf, channels, deltas, limit, quantile, shade } from "./channels";

const row: TokenRow = {
  group: 0, sample: 0, kind: "rollout", prompt: "p", text: ["a", "b"], id: [1, 2],
  lp_sampler: [-1, -2], lp_old: [-1, -2.5], lp_ref: [-1.5, -2], entropy: null, value: [0.5, 0.25], return: [1, 0.75], advantage: [2, -1],
  update: [0, 1], lp_new: [[-1, -2.5], [-1 + Math.log(1.5), -2.5 + Math.log(0.5)]], outcome: [[0, 0], [2, 2]], reward: 1, stop: "eos", score: null,
};
const explain = { surrogate: "ClippedRatio", level: "token", gamma: 1, lam: 0.5 };

test("the channels of a PPO row, by hand", () => {
  const found = Object.fromEntries(channels(row, 1, explain, { low: 0.2, high: 0.2 }).map(({ key, values }) => [key, values.map((value) => Number(value!.toFixed(6)))]));
  expect(found).toEqual({
    advantage: [2, -1],
    ratio: [0.405465, -0.693147],
    kl: [0.5, -0.5],
    mismatch: [0, -0.5],
    value: [0.5, 0.25],
    delta: [0.25, 0.5], // Â = 0.5, 0.5: 0.5 − 0.5·0.5, and 0.5 at the end
    objective: [2.4, -0.8], // 1.2·2, and 0.8·(−1)
    logp: [-0.594535, -3.193147],
  });
});

test("surprises add up to the advantages again", () => {
  const found = deltas(row, 1, 0.5)!;
  expect(found[0]! + 0.5 * found[1]!).toBeCloseTo(0.5, 12);
});

test("an objective is shown only where it is what was maximised", () => {
  const keys = (of: Record<string, string | null>, band = bandOf({ eps_low: 0.2, eps_high: 0.2 }, null)) => channels(row, 1, of, band).map(({ key }) => key);
  expect(keys({ surrogate: "ClippedWeight", level: "token" })).not.toContain("objective");
  expect(keys({ surrogate: "ClippedRatio", level: "sequence" })).not.toContain("objective");
  expect(keys(explain as never, null)).not.toContain("objective");
  expect(bandOf({}, [null, 4])).toBeNull();
  expect(bandOf({ eps_low: 1, eps_high: 1 }, [0.2, 0.28])).toEqual({ low: 0.2, high: 0.28 });
});

test("a demonstration has its log-probs alone", () => {
  const bare = { ...row, lp_sampler: null, lp_old: null, lp_ref: null, value: null, return: null, advantage: null, outcome: null as never };
  expect(channels(bare, 0, {}, null).map(({ key }) => key)).toEqual(["logp"]);
});

test("quantiles are interpolated, and an outlier does not fade the rest", () => {
  expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  expect(quantile([], 0.5)).toBeNull();
  const values = [...Array.from({ length: 99 }, (_, i) => (i % 2 ? 1 : -1)), 1000];
  expect(limit(values)).toBe(1);
  expect([shade(1000, 1), shade(-0.5, 1), shade(null, 1), shade(3, 0)]).toEqual([1, -0.5, 0, 0]);
});
