import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/gae.json";
import { gae, whiten } from "./gae";

const close = (got: readonly number[], wanted: readonly number[]): void => {
  expect(got.length).toBe(wanted.length);
  got.forEach((value, i) => expect(Math.abs(value - wanted[i]!)).toBeLessThan(1e-6));
};

test.each(golden)("as oneloop: $inputs", ({ inputs, expected }) => {
  const credit = gae(inputs.rewards, inputs.values, inputs.gamma, inputs.lam, inputs.bootstrap);
  close(credit.advantages, expected.advantages);
  close(credit.returns, expected.returns);
  close(whiten(credit.advantages), expected.whitened);
});

test("λ = 1 is return minus value, λ = 0 is δ", () => {
  const [rewards, values] = [[0, 0.5, 1], [0.3, 0.2, 0.9]];
  close(gae(rewards, values, 1, 1).advantages, [1.5 - 0.3, 1.5 - 0.2, 1 - 0.9]);
  close(gae(rewards, values, 1, 0).advantages, gae(rewards, values, 1, 0).deltas);
});
