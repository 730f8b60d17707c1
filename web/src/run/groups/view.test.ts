import { expect, test } from "vitest";
import type { RolloutRow } from "../../types";
import { judged, sorted, usual } from "./view";

function answer(group: number, sample: number, reward: number | null, length: number): RolloutRow {
  return {
    row: 0, group, sample, prompt: "1+1=", completion: "2", cut: false, rewards: {}, reward, advantage: 0, length, stop: "eos", kept: true, answer: null, target: null, extras: {}, turns: null, episode: null, error: null,
  };
}
const rows = [answer(0, 0, 0, 3), answer(0, 1, 0, 4), answer(4, 0, 1, 2), answer(4, 1, 0.5, 2), answer(7, 0, 1, 9), answer(7, 1, null, 1)];
const groups = judged({ step: 0, columns: [], rows }, null, 0.6);

test("each group's fate, its spread, and all tokens it cost", () => {
  expect(groups.map((group) => [group.number, group.fate, group.std, group.tokens])).toEqual([
    [1, "all wrong", 0, 7],
    [5, "alive", 0.25, 4],
    [8, "all right", 0, 10],
  ]);
  expect(groups.map(({ tally }) => tally)).toEqual([{ right: 0, size: 2 }, { right: 1, size: 2 }, { right: 1, size: 1 }]);
  expect(usual(groups)).toBe(2);
});

test("lengths that nobody wrote are no 0 tokens", () => {
  expect(judged({ step: 0, columns: [], rows: [{ ...answer(0, 0, 1, 1), length: null }] }, null, 0)[0]!.tokens).toBeNull();
});

test("orders", () => {
  expect(sorted(groups, "std").map(({ number }) => number)).toEqual([5, 1, 8]);
  expect(sorted(groups, "tokens").map(({ number }) => number)).toEqual([8, 1, 5]);
  expect(sorted(groups, "number").map(({ number }) => number)).toEqual([1, 5, 8]);
});
