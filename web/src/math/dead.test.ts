import { expect, test } from "vitest";
import { difficulty, expectedDead, fate, meter } from "./dead";
import { deadChance } from "./groups";

test("p^G + (1 − p)^G at p = 0.1", () => {
  expect([4, 8, 16].map((size) => deadChance(0.1, size).toFixed(3))).toEqual(["0.656", "0.430", "0.185"]);
});

test("prompts that are equally hard: the plain formula, whatever few answers each has", () => {
  // 1 right of 10 in every group: less spread than coins have
  const tallies = Array.from({ length: 6 }, () => ({ right: 1, size: 10 }));
  expect(difficulty(tallies)).toEqual({ p: 0.1, alike: 0 });
  for (const size of [4, 8, 16]) expect(expectedDead(tallies, () => size)).toBeCloseTo(deadChance(0.1, size), 12);
});

test("prompts that are surely right or surely wrong stay dead at any size", () => {
  const tallies = [{ right: 4, size: 4 }, { right: 0, size: 4 }, { right: 0, size: 4 }];
  expect(difficulty(tallies).alike).toBe(1);
  expect(expectedDead(tallies, () => 16)).toBe(1);
});

test("a worked example: two prompts, 3 and 1 right of 4", () => {
  // p = 1/2, between = 4·(1/16)·2/1 = 1/2, inside = (3/4 + 3/4)/6 = 1/4, size = (8 − 32/8)/1 = 4
  // alike = (1/2 − 1/4)/(1/2 + 3/4) = 1/5, a + b = 4: Beta(2 + 3, 2 + 1) and its mirror; G = 2: (5·6 + 3·4)/(8·9)
  const tallies = [{ right: 3, size: 4 }, { right: 1, size: 4 }];
  expect(difficulty(tallies)).toEqual({ p: 0.5, alike: expect.closeTo(0.2, 12) });
  expect(expectedDead(tallies, () => 2)).toBeCloseTo(42 / 72, 12);
});

test("no answer right, and one prompt alone", () => {
  expect(expectedDead([{ right: 0, size: 4 }, { right: 0, size: 4 }], () => 16)).toBe(1);
  expect(expectedDead([{ right: 1, size: 4 }], () => 4)).toBeCloseTo(deadChance(0.25, 4), 12);
  expect(expectedDead([], () => 4)).toBeNaN();
});

test("fates, and what they cost", () => {
  expect([[1, 0], [0, 0], [1, 1], [], [0.5]].map((rewards) => fate(rewards))).toEqual(["alive", "all wrong", "all right", "unscored", "all right"]);
  expect(fate([0.1, 0.1], 0.5)).toBe("all wrong");
  const found = meter([{ fate: "alive", tokens: 5 }, { fate: "all wrong", tokens: 7 }, { fate: "all wrong", tokens: 1 }]);
  expect(found["all wrong"]).toEqual({ groups: 2, tokens: 8 });
  expect(found["all right"]).toEqual({ groups: 0, tokens: 0 });
});
