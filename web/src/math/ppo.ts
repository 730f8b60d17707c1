/** PPO on the chain of words: every stage of the loop as a function, with gradients written by hand.
 *
 * The order is that of oneloop's train.py: sample, score, values, advantages, K epochs of minibatches, sync.
 */
import { LENGTH, referenceLogits, score, STATES, standing, stateOf, WORDS, type Standing } from "./chain";
import { gae, whiten } from "./gae";
import { logSoftmax, softmax } from "./kl";
import { draw, random, shuffled, type Random } from "./random";

export interface Settings {
  /** K: how often the batch is gone through. */
  epochs: number;
  /** Optimizer steps per epoch. */
  minibatches: number;
  /** ε of the clip, the same on both sides. */
  epsilon: number;
  /** β of the KL penalty in the reward. */
  beta: number;
  /** λ of GAE. */
  lam: number;
  /** Of the policy's logits; the critic's is fixed. */
  rate: number;
}

export const SETTINGS: Settings = { epochs: 4, minibatches: 1, epsilon: 0.2, beta: 0.1, lam: 0.95, rate: 2 };
export const ANSWERS = 32;
/** Of the tabular critic: the share of the error that an update takes away where every token visits the state. */
export const CRITIC_RATE = 1;

/** One word of one answer, and everything the loop knows of it so far. */
export interface Action {
  state: number;
  word: number;
  logpOld: number;
  logpRef: number;
  /** −β (log π_old − log π_ref), plus the score at the last word. */
  reward: number;
  value: number;
  delta: number;
  /** As GAE gives it; the policy sees it whitened. */
  advantage: number;
  whitened: number;
  return: number;
  /** π_θ/π_old as the newest update that saw it found it; null before the first. */
  ratio: number | null;
  /** The clip took its gradient there. */
  clipped: boolean;
}

export interface Answer {
  words: number[];
  score: number;
  actions: Action[];
}

export interface TokenStep {
  ratio: number;
  loss: number;
  clipped: boolean;
  /** In the logits of its state. */
  gradient: number[];
}

/** One token's part of −min(ρÂ, clip(ρ)Â), and its gradient in the logits of its state. */
export function policyGradient(logits: readonly number[], word: number, logpOld: number, advantage: number, epsilon: number): TokenStep {
  const ratio = Math.exp(logSoftmax(logits)[word]! - logpOld);
  const bounded = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilon);
  const clipped = bounded * advantage < ratio * advantage;
  const loss = -Math.min(ratio * advantage, bounded * advantage);
  const gradient = softmax(logits).map((p, v) => (clipped ? 0 : -ratio * advantage * (Number(v === word) - p)));
  return { ratio, loss, clipped, gradient };
}

/** ½(V − R)² and its gradient in V. */
export function valueGradient(value: number, target: number): { loss: number; gradient: number } {
  return { loss: (value - target) ** 2 / 2, gradient: value - target };
}

export const STAGES = ["sample", "score", "values", "gae", "update", "sync"] as const;
export type Stage = (typeof STAGES)[number];

export interface Update {
  /** Which answers it saw. */
  answers: number[];
  policyLoss: number;
  valueLoss: number;
  /** Share of its tokens that the clip left without gradient. */
  clipped: number;
  /** ρ of its tokens before its gradient. */
  ratios: number[];
}

export class Machine {
  readonly reference = referenceLogits();
  readonly policy = referenceLogits();
  readonly critic: number[] = new Array<number>(STATES).fill(0);
  answers: Answer[] = [];
  updates: Update[] = [];
  /** The stage that was done last; null before the first. */
  done: Stage | null = null;
  /** Batches that were sampled, trained on, and left behind. */
  loops = 0;
  private readonly chance: Random;
  private queue: number[][] = [];
  private planned = 0;

  constructor(seed: number) {
    this.chance = random(seed);
  }

  /** What `advance` will do. */
  get next(): Stage {
    if (this.done === "update" && this.queue.length) return "update";
    return this.done === null ? "sample" : STAGES[(STAGES.indexOf(this.done) + 1) % STAGES.length]!;
  }

  /** Optimizer steps that this batch was given when its first one began; 0 before. */
  get steps(): number {
    return this.planned;
  }

  /** One stage; of the updates, one optimizer step. */
  advance(settings: Settings): void {
    const stage = this.next;
    if (stage === "sample") this.sample();
    else if (stage === "score") this.score(settings);
    else if (stage === "values") this.values();
    else if (stage === "gae") this.credit(settings);
    else if (stage === "update") this.update(settings);
    else this.loops += 1; // sync: the next batch is sampled from π_θ
    this.done = stage;
  }

  /** To the end of the loop that is on, or of the next one. */
  turn(settings: Settings): void {
    do this.advance(settings);
    while (this.done !== "sync");
  }

  /** How well the policy does, exactly. */
  standing(): Standing {
    return standing(this.policy, this.reference);
  }

  private sample(): void {
    this.updates = [];
    this.queue = [];
    this.planned = 0;
    this.answers = Array.from({ length: ANSWERS }, () => {
      const words: number[] = [];
      const actions: Action[] = [];
      while (words.length < LENGTH) {
        const state = stateOf(words);
        const logps = logSoftmax(this.policy[state]!);
        const word = draw(this.chance, logps.map(Math.exp));
        actions.push({ state, word, logpOld: logps[word]!, logpRef: logSoftmax(this.reference[state]!)[word]!, reward: 0, value: 0, delta: 0, advantage: 0, whitened: 0, return: 0, ratio: null, clipped: false });
        words.push(word);
      }
      return { words, score: 0, actions };
    });
  }

  private score({ beta }: Settings): void {
    for (const answer of this.answers) {
      answer.score = score(answer.words);
      for (const action of answer.actions) action.reward = -beta * (action.logpOld - action.logpRef);
      answer.actions.at(-1)!.reward += answer.score;
    }
  }

  private values(): void {
    for (const action of this.actions) action.value = this.critic[action.state]!;
  }

  private credit({ lam }: Settings): void {
    for (const { actions } of this.answers) {
      const credit = gae(actions.map((a) => a.reward), actions.map((a) => a.value), 1, lam);
      actions.forEach((action, t) => {
        action.delta = credit.deltas[t]!;
        action.advantage = credit.advantages[t]!;
        action.return = credit.returns[t]!;
      });
    }
    const whitened = whiten(this.actions.map((action) => action.advantage));
    this.actions.forEach((action, i) => (action.whitened = whitened[i]!));
  }

  get actions(): Action[] {
    return this.answers.flatMap((answer) => answer.actions);
  }

  private update(settings: Settings): void {
    if (!this.queue.length) this.plan(settings);
    const answers = this.queue.shift()!;
    const actions = answers.flatMap((i) => this.answers[i]!.actions);
    const policy = this.policy.map((logits) => logits.map(() => 0));
    const critic = this.critic.map(() => 0);
    const now: Update = { answers, policyLoss: 0, valueLoss: 0, clipped: 0, ratios: [] };
    const weight = 1 / actions.length; // the mean over the tokens of the minibatch
    for (const action of actions) {
      const part = policyGradient(this.policy[action.state]!, action.word, action.logpOld, action.whitened, settings.epsilon);
      part.gradient.forEach((slope, v) => (policy[action.state]![v]! += weight * slope));
      const error = valueGradient(this.critic[action.state]!, action.return);
      critic[action.state]! += weight * error.gradient;
      action.ratio = part.ratio;
      action.clipped = part.clipped;
      now.ratios.push(part.ratio);
      now.policyLoss += weight * part.loss;
      now.valueLoss += weight * error.loss;
      now.clipped += weight * Number(part.clipped);
    }
    policy.forEach((row, state) => row.forEach((slope, v) => (this.policy[state]![v]! -= settings.rate * slope)));
    critic.forEach((slope, state) => (this.critic[state]! -= CRITIC_RATE * slope));
    this.updates.push(now);
  }

  private plan({ epochs, minibatches }: Settings): void {
    const size = Math.ceil(this.answers.length / minibatches);
    for (let epoch = 0; epoch < epochs; epoch++) {
      const order = shuffled(this.chance, this.answers.length);
      for (let from = 0; from < order.length; from += size) this.queue.push(order.slice(from, from + size));
    }
    this.planned = this.queue.length;
  }
}

export function text(words: readonly number[]): string {
  return words.map((word) => WORDS[word]).join(" ");
}
