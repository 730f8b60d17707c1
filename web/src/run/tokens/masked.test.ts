import { expect, test } from "vitest";
import { masked } from "./masked";

test("masked tokens stand where they were said", () => {
  const row = { text: ["J", "<eos>", "M", "<eos>"], masked_at: [2, 2, 4], masked_text: ["u", "p", "!"] };
  expect(masked(row)).toEqual([[], [], ["u", "p"], [], ["!"]]);
});

test("rows without an environment, and those of older runs, have none", () => {
  expect(masked({ text: ["a"], masked_at: null, masked_text: null })).toEqual([[], []]);
  expect(masked({ text: [] })).toEqual([[]]);
});
