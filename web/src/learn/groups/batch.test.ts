import { expect, test } from "vitest";
import { differ } from "../../math/groups";
import { DEFAULT, read, resample, resize, TRIES, write } from "./batch";

test("an address and back", () => {
  expect(write(read(DEFAULT))).toBe(DEFAULT);
  expect(read("1,x;3")).toEqual([[1, 0], [3, 3]]);
  expect(read("")).toEqual([[0, 0]]);
  expect(read(`${"1,".repeat(40)}1`)[0]).toHaveLength(16);
});

test("a larger group repeats its rewards", () => {
  expect(resize([[1, 0]], 5)).toEqual([[1, 0, 1, 0, 1]]);
});

test("resampling replaces dead groups only, and counts what it threw away", () => {
  const places = resample(read(DEFAULT), 0.3);
  expect(places[0]).toEqual({ rewards: [1, 0.8, 0.4, 0.2], dropped: [] });
  expect(places[1]!.dropped[0]).toEqual([0, 0, 0, 0]);
  for (const place of places) {
    expect(differ(place.rewards)).toBe(true);
    expect(place.dropped.some(differ)).toBe(false);
  }
  expect(resample(read(DEFAULT), 0.3)).toEqual(places);
});

test("where no prompt can be mixed it gives up", () => {
  const [place] = resample([[0, 0]], 0);
  expect(place!.dropped).toHaveLength(TRIES);
  expect(place!.rewards).toEqual([0, 0]);
});
