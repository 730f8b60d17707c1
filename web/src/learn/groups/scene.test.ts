import { expect, test } from "vitest";
import type { RolloutRow, Rollouts, TokenRow } from "../../types";
import { groupsOf, words } from "./scene";

function row(group: number, sample: number, reward: number | null, completion = "a b"): RolloutRow {
  return { row: 0, group, sample, prompt: `p${group}`, completion, cut: false, rewards: {}, reward, advantage: 0.5, length: 2, stop: "eos", kept: group > 0, answer: null, target: null, extras: {}, turns: null, episode: null, error: null };
}
const rollouts: Rollouts = { step: 3, columns: [], rows: [row(0, 0, 1), row(0, 1, null), row(1, 0, 1, "x y"), row(1, 1, 0, "x z")] };

test("rows become groups; what was not scored leaves them and is counted", () => {
  const [first, second] = groupsOf(rollouts, null);
  expect(first).toMatchObject({ name: "group 1", prompt: "p0", unscored: 1, dropped: true, pieces: "words" });
  expect(first!.answers.map((answer) => answer.reward)).toEqual([1]);
  expect(second!.answers.map((answer) => answer.pieces)).toEqual([["x", " y"], ["x", " z"]]);
});

test("tokens stand in for words only where every answer of the group has them", () => {
  const token = (group: number, sample: number): TokenRow => ({ group, sample, text: ["t", `${sample}`] }) as unknown as TokenRow;
  const [first, second] = groupsOf(rollouts, { step: 3, rows: [token(0, 0), token(1, 0), token(1, 1)] });
  expect(first!.pieces).toBe("words");
  expect(second).toMatchObject({ pieces: "tokens", answers: [{ pieces: ["t", "0"] }, { pieces: ["t", "1"] }] });
});

test("words keep all of the text", () => {
  expect(words(" a  b\n").join("")).toBe(" a  b\n");
  expect(words("")).toEqual([]);
});
