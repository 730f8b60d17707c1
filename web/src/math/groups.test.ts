import { expect, test } from "vitest";
import golden from "../../../tests/lab/golden/groups.json";
import { deadChance, differ, firstDifference, groupAdvantages, leaveOneOut, mean, std, type Ddof } from "./groups";

function close(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  found.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-6));
}

test.each(golden)("what oneloop computes: $inputs", ({ inputs: { groups }, expected }) => {
  close(groupAdvantages(groups, "none", 0).flat(), expected.none);
  for (const ddof of [0, 1] as Ddof[]) {
    close(groupAdvantages(groups, "group", ddof).flat(), expected[`group_${ddof}`]);
    close(groupAdvantages(groups, "batch", ddof).flat(), expected[`batch_${ddof}`]);
  }
  close(groups.flatMap(leaveOneOut), expected.leave_one_out);
  expect(groups.map(differ)).toEqual(expected.kept);
});

test("the worked numbers", () => {
  const rewards = [1, 0.8, 0.4, 0.2];
  expect(mean(rewards)).toBeCloseTo(0.6, 12);
  expect(std(rewards, 0)).toBeCloseTo(0.3162, 4);
  expect(groupAdvantages([rewards], "group", 0)[0]!.map((value) => value.toFixed(2))).toEqual(["1.26", "0.63", "-0.63", "-1.26"]);
  expect(groupAdvantages([[1, 0, 0, 1]], "group", 0)[0]!.map((value) => value.toFixed(3))).toEqual(["1.000", "-1.000", "-1.000", "1.000"]);
  expect(groupAdvantages([[1, 0, 0, 1]], "group", 1)[0]!.map((value) => value.toFixed(3))).toEqual(["0.866", "-0.866", "-0.866", "0.866"]);
});

test("equal rewards whose mean is not exact give exactly 0", () => {
  expect(groupAdvantages([[0.1, 0.1, 0.1]], "group", 0)).toEqual([[0, 0, 0]]);
  expect(std([0.1, 0.1, 0.1], 0)).toBe(0);
});

test("how often a group is dead", () => {
  expect([4, 8, 16].map((size) => deadChance(0.1, size).toFixed(3))).toEqual(["0.656", "0.430", "0.185"]);
});

test("where answers part", () => {
  expect(firstDifference([["a", "b"], ["a", "c"]])).toBe(1);
  expect(firstDifference([["a"], ["a", "c"]])).toBe(1);
  expect(firstDifference([["a"], ["a"]])).toBeNull();
  expect(firstDifference([[], ["x"]])).toBe(0);
  expect(firstDifference([])).toBeNull();
});
