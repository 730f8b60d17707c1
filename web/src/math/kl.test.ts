import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/kl.json";
import { exactKl, klEstimate, softmax } from "./kl";

test.each(golden)("as oneloop: $inputs", ({ inputs, expected }) => {
  if (inputs.log_ratio === undefined) {
    expect(Math.abs(exactKl(inputs.logits, inputs.ref_logits) - expected.exact!)).toBeLessThan(1e-6);
    return;
  }
  for (const name of ["k1", "k2", "k3"] as const) {
    const wanted = expected[name]!;
    expect(Math.abs(klEstimate(inputs.log_ratio, name) - wanted)).toBeLessThan(1e-6 * Math.max(1, wanted));
  }
});

test("probabilities add up to 1, however large the logits are", () => {
  expect(softmax([1000, 0, -1000]).reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
});
