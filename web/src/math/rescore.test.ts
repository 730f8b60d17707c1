import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/rescore.json";
import { cosine, preset, tokenGradients, type Method, type Rule, type Scored } from "./rescore";

test.each(golden)("what autograd finds under oneloop's objective: $inputs.method $inputs.changes", ({ inputs, expected }) => {
  const rule: Rule = { ...preset(inputs.method as Method, inputs.budget), ...(inputs.changes as Partial<Rule>) };
  const found = tokenGradients(inputs.rows as Scored[], rule);
  expect(found.map((row) => row.length)).toEqual(expected.gradients.map((row) => row.length));
  // ratios of e¹⁰ are among them: 1e-6 of the size
  expected.gradients.flat().forEach((value, i) => expect(Math.abs(found.flat()[i]! - value)).toBeLessThan(1e-6 * Math.max(1, Math.abs(value))));
});

test("cosines", () => {
  expect(cosine([[1, 0], [0]], [[2, 0], [0]])).toBeCloseTo(1, 12);
  expect(cosine([[1, 0]], [[0, 1]])).toBe(0);
  expect(cosine([[1, 1]], [[-1, -1]])).toBeCloseTo(-1, 12);
  expect(cosine([[0, 0]], [[1, 1]])).toBeNull();
});
