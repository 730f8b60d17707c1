/** The toy's batch of groups: how the address writes it, and dynamic sampling on it. */
import { differ } from "../../math/groups";
import { random } from "../../math/random";

/** The documents' example, a prompt too hard, one too easy, and one in between. */
export const DEFAULT = "1,0.8,0.4,0.2;0,0,0,0;1,1,1,1;1,0,0,0";
export const SIZES = { min: 2, max: 16 };
/** Peers give up on a prompt's place after ten batches. */
export const TRIES = 10;

/** Groups of one size between 2 and 16; what is no number is 0. */
export function read(text: string): number[][] {
  const groups = text.split(";").slice(0, 8).map((group) => group.split(",").map((reward) => Number(reward)).map((reward) => (Number.isFinite(reward) ? reward : 0)));
  return resize(groups, Math.max(...groups.map((group) => group.length)));
}

export function write(groups: readonly (readonly number[])[]): string {
  return groups.map((group) => group.join(",")).join(";");
}

/** Every group with `size` answers; a longer one repeats its rewards. */
export function resize(groups: readonly (readonly number[])[], size: number): number[][] {
  const wanted = Math.min(Math.max(size, SIZES.min), SIZES.max);
  return groups.map((group) => Array.from({ length: wanted }, (_, i) => group[i % group.length]!));
}

export interface Place {
  /** What stands in the batch at last. */
  rewards: readonly number[];
  /** What was sampled for this place and thrown away, in order. */
  dropped: readonly (readonly number[])[];
}

/** DAPO: a dead group is thrown away and a new prompt sampled, until the rewards differ. A fresh answer is right with chance p. */
export function resample(groups: readonly (readonly number[])[], p: number): Place[] {
  return groups.map((group, i) => {
    const chance = random(i + 1);
    const dropped: (readonly number[])[] = [];
    let rewards = group;
    while (!differ(rewards) && dropped.length < TRIES) {
      dropped.push(rewards);
      rewards = group.map(() => (chance() < p ? 1 : 0));
    }
    return { rewards, dropped };
  });
}
