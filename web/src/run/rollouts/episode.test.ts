import { expect, test } from "vitest";
import golden from "../../../../tests/lab/golden/turns.json";
import type { Piece } from "../../types";
import { ending, totals } from "./episode";

test.each(golden)("what the run logged: $expected", ({ inputs, expected }) => {
  const found = totals(inputs.episode);
  expect(found).toMatchObject({ turns: expected.turns, given: expected.given, chosen: expected.chosen });
  expect(found.reward).toBeCloseTo(expected.reward, 6);
  expect(ending(inputs).startsWith("truncated")).toBe(expected.truncated);
  if (inputs.error) expect(ending(inputs)).toContain(inputs.error);
});

const piece = (chosen: boolean, more: Partial<Piece> = {}): Piece => ({ chosen, messages: [], tokens: null, reward: null, advantage: null, terminated: false, truncated: false, calls: [], ...more });

test("what an older file does not say is not counted", () => {
  expect(totals([piece(true, { reward: 1 }), piece(false)])).toEqual({ turns: 1, chosen: null, given: null, reward: 1, calls: 0 });
});

test("a limit of turns and an environment that cuts are told apart", () => {
  expect(ending({ stop: "turns", error: null, episode: [piece(true, { truncated: true }), piece(false)] })).toContain("the environment cut it");
  expect(ending({ stop: "turns", error: null, episode: [piece(true)] })).toContain("the limit of turns");
});
