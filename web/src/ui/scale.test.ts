import { expect, test } from "vitest";
import { clear } from "./scale";

test("a number moves beyond a mark that would cross it, and else stays", () => {
  expect([clear(100, undefined, -1), clear(100, 60, -1), clear(100, 110, -1)]).toEqual([100, 100, 100]);
  expect([clear(100, 95, -1), clear(100, 95, 1)]).toEqual([90, 109]);
});
