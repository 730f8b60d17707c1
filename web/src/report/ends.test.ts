import { expect, test } from "vitest";
import { ends } from "./ends";

test("half from the top, half from the bottom, none without a reward", () => {
  const rows = [0.2, null, 0.9, 0.1, 0.5, 0.4].map((reward) => ({ reward }));
  expect(ends(rows, 4).map((row) => row.reward)).toEqual([0.9, 0.5, 0.2, 0.1]);
  expect(ends(rows, 16).map((row) => row.reward)).toEqual([0.9, 0.5, 0.4, 0.2, 0.1]);
});
