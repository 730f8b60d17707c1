import { expect, test } from "vitest";
import { likelihoods } from "./words";

test.each([
  [[-10, -12], [-10, -15], "Both fell", "grew by 3.00 nats"],
  [[-10, -8], [-10, -9], "Both rose", "grew by 1.00 nats"],
  [[-10, -8], [-10, -12], "apart by 4.00 nats", "hopes for"],
  [[-10, -12], [-10, -11], "did not grow", "fell by 2.00 nats"],
  [[-10], [-10], "Not enough steps", ""],
  [[null, -10, -12], [-10, null, -15], "Both fell", "3.00"],
])("%j and %j", (chosen, rejected, first, second) => {
  const words = likelihoods(chosen, rejected);
  expect(words).toContain(first);
  expect(words).toContain(second);
});
