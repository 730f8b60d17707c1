import { expect, test } from "vitest";
import { after, before, last, nearest, recorded } from "./steps";

const uneven = { count: 7, spans: [[0, 4, 4], [9, 24, 5], [30, 30, 1]] as [number, number, number][] };
const none = { count: 0, spans: [] };

test("steps that lie unevenly are all found", () => {
  expect(recorded(uneven)).toEqual([0, 4, 9, 14, 19, 24, 30]);
  expect([5, 7, 17, 99].map((step) => nearest(step, uneven))).toEqual([4, 9, 19, 30]);
  expect([after(4, uneven), after(10, uneven), after(30, uneven)]).toEqual([9, 14, null]);
  expect([before(30, uneven), before(5, uneven), before(0, uneven)]).toEqual([24, 4, null]);
  expect(last(uneven)).toBe(30);
});

test("a table without steps", () => {
  expect([recorded(none), nearest(3, none), after(3, none), before(3, none), last(none)]).toEqual([[], 3, null, null, null]);
});
