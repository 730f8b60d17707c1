import { expect, test } from "vitest";
import { byLength, evenly, point, trained, type Measured } from "./view";

function answer(row: number, reward: number | null, length: number, stop = "eos", kept = true): Measured {
  return { row, group: 0, sample: row, prompt: "", completion: "", cut: false, rewards: {}, reward, advantage: 0, length, stop, kept, answer: null, target: null, extras: {}, turns: null, episode: null, error: null };
}

test("lengths of right and wrong answers, and the truncated share", () => {
  const rows = [answer(0, 1, 4), answer(1, 0, 8, "length"), answer(2, 0, 6), answer(3, null, 100)];
  expect(point(3, rows, 0)).toEqual({ step: 3, right: 4, wrong: 7, truncated: 0.25 });
  expect(point(3, [{ ...answer(0, 1, 0), length: null, stop: null }], 0)).toEqual({ step: 3, right: null, wrong: null, truncated: null });
  expect(point(3, [], 0)).toEqual({ step: 3, right: null, wrong: null, truncated: null });
  expect(trained([...rows, answer(4, 1, 3, "eos", false)]).map(({ row }) => row)).toEqual([0, 1, 2]);
});

test("steps of the history", () => {
  expect(evenly({ count: 8, spans: [[0, 7, 1]] }, 24)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(evenly({ count: 1, spans: [[5, 5, 1]] }, 24)).toEqual([5]);
  expect(evenly({ count: 0, spans: [] }, 24)).toEqual([]);
  const far = evenly({ count: 5000, spans: [[0, 19996, 4]] }, 24);
  expect(far.length).toBe(24);
  expect([far[0], far[23], far.every((step) => step % 4 === 0)]).toEqual([0, 19996, true]);
});

test("some of many, the shortest and the longest among them", () => {
  const rows = Array.from({ length: 100 }, (_, i) => answer(i, 0, 100 - i));
  const some = byLength(rows, 10);
  expect([some.length, some[0]!.length, some[9]!.length]).toEqual([10, 1, 100]);
});
