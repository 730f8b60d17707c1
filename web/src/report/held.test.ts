import { expect, test } from "vitest";
import { held } from "./held";

const row = (row: number, prompt = "1+1=") => ({ row, prompt });
const answers = {
  "/api/runs": { runs: [] },
  "/api/runs/a/curves": { x: "step", series: [{ name: "loss" }, { name: "reward" }] },
  "/api/runs/a/events": { offset: 90, rows: [1, 2], reset: false },
  "/api/runs/a/rollouts?step=0": { step: 0, rows: [row(3), row(1, "2+2=")] },
  "/api/runs/a/rollouts?step=9": { step: 9, rows: [row(7)] },
};
const ask = (rest: string) => held(answers, `/api/runs/a${rest}`) as any;

test("curves are those that are asked for, over steps alone", () => {
  expect(ask("/curves?names=reward&names=kl&points=1000").series).toEqual([{ name: "reward" }]);
  expect(ask("/curves?names=reward&x=time")).toBeUndefined();
});

test("lines come once", () => {
  expect(ask("/events?offset=0").rows).toEqual([1, 2]);
  expect(ask("/events?offset=90").rows).toEqual([]);
  expect(ask("/metrics?offset=12")).toEqual({ offset: 12, rows: [], reset: false });
});

test("the nearest step answers, and the last one where none is named", () => {
  expect(ask("/rollouts?step=3").step).toBe(0);
  expect(ask("/rollouts?step=8").step).toBe(9);
  expect(ask("/rollouts").step).toBe(9);
  expect(ask("/pairs?step=0")).toBeUndefined();
  expect(held(answers, "/api/runs/b/rollouts?step=0")).toBeUndefined();
});

test("rows are found by their number, and by their prompt", () => {
  expect(ask("/rollouts/1?step=0")).toMatchObject({ step: 0, row: 1, prompt: "2+2=" });
  expect(ask("/rollouts/5?step=0")).toBeUndefined();
  expect(ask("/prompt?step=0&row=3").rows.map((one: any) => [one.step, one.row])).toEqual([[0, 3], [9, 7]]);
});

test("everything else by its route", () => {
  expect(held(answers, "/api/runs")).toEqual({ runs: [] });
  expect(held(answers, "/api/nothing")).toBeUndefined();
});
