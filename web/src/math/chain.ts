/** A language model small enough to look at: answers of three words from four, every state in a table.
 *
 * A state is what was written so far: 1 + 4 + 16 = 21 of them. The reward model and the reference are frozen.
 */
import { exactKl, logSoftmax, softmax } from "./kl";

export const WORDS = ["the", "cat", "sat", "mat"] as const;
export const LENGTH = 3;
const SIZE = WORDS.length;
/** 1, then 4, then 16 states. */
const OFFSET = [0, 1, 1 + SIZE] as const;
export const STATES = 1 + SIZE + SIZE * SIZE;

/** The state in which word `written.length` is chosen. */
export function stateOf(written: readonly number[]): number {
  return OFFSET[written.length]! + written.reduce((number, word) => number * SIZE + word, 0);
}

/** Log-odds of the next word in the frozen reference, by the word before: it likes "the", and "mat" after it. */
const REFERENCE = [
  [0.4, 0, 0, 0],
  [0, 0.2, 0, 0.6],
  [0.3, 0, 0.2, 0],
  [0.5, 0, 0, 0],
  [0.4, 0, 0.2, 0],
];

/** Logits of π_ref in every state. Training starts from them. */
export function referenceLogits(): number[][] {
  return Array.from({ length: STATES }, (_, state) => {
    const before = state === 0 ? 0 : ((state < OFFSET[2] ? state - OFFSET[1] : state - OFFSET[2]) % SIZE) + 1;
    return [...REFERENCE[before]!];
  });
}

const GOAL = [0, 1, 2];
const SCORES = [0, 0.2, 0.5, 1];

/** The frozen reward model: how much of "the cat sat" the answer begins with. 0, 0.2, 0.5 or 1. */
export function score(answer: readonly number[]): number {
  let right = 0;
  while (right < LENGTH && answer[right] === GOAL[right]) right += 1;
  return SCORES[right]!;
}

export interface Standing {
  /** E[score] under π_θ. */
  score: number;
  /** KL(π_θ ‖ π_ref) of whole answers, nats. */
  kl: number;
}

/** Exact, by going through all 64 answers. PPO climbs score − β·kl. */
export function standing(policy: readonly (readonly number[])[], reference: readonly (readonly number[])[]): Standing {
  let [mean, kl] = [0, 0];
  const visit = (written: number[], chance: number): void => {
    if (written.length === LENGTH) {
      mean += chance * score(written);
      return;
    }
    const state = stateOf(written);
    kl += chance * exactKl(policy[state]!, reference[state]!);
    softmax(policy[state]!).forEach((p, word) => visit([...written, word], chance * p));
  };
  visit([], 1);
  return { score: mean, kl };
}

/** The highest objective there is: β log Σ_y π_ref(y) exp(score(y)/β); without a penalty, the highest score. */
export function best(reference: readonly (readonly number[])[], beta: number): number {
  if (beta === 0) return SCORES.at(-1)!;
  let total = 0;
  const visit = (written: number[], logp: number): void => {
    if (written.length === LENGTH) total += Math.exp(logp + (score(written) - SCORES.at(-1)!) / beta);
    else logSoftmax(reference[stateOf(written)]!).forEach((step, word) => visit([...written, word], logp + step));
  };
  visit([], 0);
  return SCORES.at(-1)! + beta * Math.log(total);
}
