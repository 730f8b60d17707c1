import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/aggregate.json";
import { correlation, tokenWeights, type Aggregate } from "./length";

test.each(golden)("what oneloop computes: $inputs", ({ inputs, expected }) => {
  for (const [rule, weights] of Object.entries(expected)) {
    const found = tokenWeights(inputs.lengths, rule as Aggregate, inputs.budget);
    found.forEach((weight, i) => expect(weight).toBeCloseTo(weights[i]!, 7));
  }
});

test("the weights of all tokens sum to 1 under the first two rules", () => {
  const lengths = [3, 9, 0, 1];
  const sum = (rule: Aggregate) => tokenWeights(lengths, rule, 16).reduce((total, weight, i) => total + weight * lengths[i]!, 0);
  expect([sum("token"), sum("sequence")]).toEqual([expect.closeTo(1, 12), expect.closeTo(1, 12)]);
  expect(sum("fixed")).toBeCloseTo(13 / 48, 12);
});

test("a correlation with its interval", () => {
  // 8 of 32 pairs disagree: r = (24 − 8)/32, and atanh(1/2) = ln(3)/2
  const x = Array.from({ length: 32 }, (_, i) => (i < 16 ? 1 : -1));
  const y = x.map((value, i) => (i % 4 === 3 ? -value : value));
  const half = 1.959964 / Math.sqrt(29);
  const [low, high] = [Math.tanh(Math.log(3) / 2 - half), Math.tanh(Math.log(3) / 2 + half)];
  expect(correlation(x, y)).toEqual({ r: expect.closeTo(0.5, 12), n: 32, low: expect.closeTo(low, 6), high: expect.closeTo(high, 6) });
});

test("nothing to correlate", () => {
  expect(correlation([1, 2, 3], [1, 2, 3])).toBeNull();
  expect(correlation([0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4])).toBeNull();
  expect(correlation([1, 2, 3, 4], [1, 2, 3, 4])).toEqual({ r: 1, n: 4, low: 1, high: 1 });
});
