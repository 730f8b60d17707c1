/** DPO on four answers whose true quality is known: the objective, its gradient, the closed form, and a trainer. */
import { exactKl, logSoftmax, softmax } from "./kl";
import { draw, random, type Random } from "./random";

export const QUALITY = [0, 1, 2, 2.8] as const;
export const NAMES = ["A", "B", "C", "D"] as const;
/** The reference is uniform: log π_ref of each answer. */
export const REFERENCE = QUALITY.map(() => -Math.log(QUALITY.length));
export const PAIRS = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]] as const;

export type Labels = "drawn" | "deterministic";

export function sigmoid(x: number): number {
  return x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x));
}

/** r(y) = β (log π_θ(y) − log π_ref(y)): the reward whose best policy π_θ is. arXiv:2305.18290, eq. 5. */
export function implicitReward(logp: number, refLogp: number, beta: number): number {
  return beta * (logp - refLogp);
}

/** −log σ(m) of the margin m = r(chosen) − r(rejected). arXiv:2305.18290, eq. 7. */
export function dpoLoss(margin: number): number {
  return margin > 0 ? Math.log1p(Math.exp(-margin)) : -margin + Math.log1p(Math.exp(margin));
}

/** What the gradient of a pair is multiplied with: σ(−m), how wrong the policy's own reward still is. */
export function pairWeight(margin: number): number {
  return sigmoid(-margin);
}

/** ∂loss/∂logits. The normaliser of the softmax cancels in the margin, so two logits move and the others do not. */
export function dpoGradient(logits: readonly number[], chosen: number, rejected: number, beta: number): number[] {
  const push = beta * pairWeight(marginOf(logits, chosen, rejected, beta));
  return logits.map((_, i) => (i === chosen ? -push : i === rejected ? push : 0));
}

export function marginOf(logits: readonly number[], chosen: number, rejected: number, beta: number): number {
  const logp = logSoftmax(logits);
  return implicitReward(logp[chosen]!, REFERENCE[chosen]!, beta) - implicitReward(logp[rejected]!, REFERENCE[rejected]!, beta);
}

export interface State {
  probabilities: number[];
  rewards: number[];
  /** r(D) − r(A). */
  gap: number;
  /** KL(π_θ ‖ π_ref), nats. */
  kl: number;
}

function describe(logits: readonly number[], beta: number): State {
  const rewards = logSoftmax(logits).map((logp, i) => implicitReward(logp, REFERENCE[i]!, beta));
  return { probabilities: softmax(logits), rewards, gap: rewards.at(-1)! - rewards[0]!, kl: exactKl(logits, REFERENCE) };
}

/** Where Bradley–Terry labels lead: π* ∝ π_ref exp(quality/β). Its gap is 2.8 at every β; its KL is not. */
export function target(beta: number): State {
  return describe(QUALITY.map((quality) => quality / beta), beta);
}

/** First step size in units of implicit reward, and how many pairs halve it: far steps at first, averaging later. */
const STEP = 0.5;
const HALVING = 40;
/** After this many drawn pairs the chance of the labels moves the gap by about 0.02 only. */
export const SETTLED = 100_000;

export interface Duel {
  chosen: number;
  rejected: number;
  /** Before the update. */
  margin: number;
}

/** One pair a step, by plain gradient descent on the four logits.
 *
 * The learning rate is step/β²: a step then moves the implicit reward β·log(π_θ/π_ref) by the same amount at every β,
 * and runs at different β can be compared pair by pair. With drawn labels the step falls as 1/(1 + pairs/40), or the
 * policy would tremble with every label; with labels that never disagree nothing trembles and it stays as it is.
 */
export class Trainer {
  readonly logits: number[] = QUALITY.map(() => 0);
  readonly seen: number[] = PAIRS.map(() => 0);
  /** How often the truly worse answer of each pair was preferred. */
  readonly upsets: number[] = PAIRS.map(() => 0);
  pairs = 0;
  last: Duel | null = null;
  private readonly chance: Random;

  constructor(
    readonly beta: number,
    readonly labels: Labels,
    seed: number,
  ) {
    this.chance = random(seed);
  }

  get stepSize(): number {
    return this.labels === "drawn" ? STEP / (1 + this.pairs / HALVING) : STEP;
  }

  step(): void {
    const which = draw(this.chance, PAIRS.map(() => 1 / PAIRS.length));
    const [worse, better] = PAIRS[which]!;
    const upset = this.labels === "drawn" && this.chance() >= sigmoid(QUALITY[better] - QUALITY[worse]);
    const [chosen, rejected] = upset ? [worse, better] : [better, worse];
    this.last = { chosen, rejected, margin: marginOf(this.logits, chosen, rejected, this.beta) };
    const rate = this.stepSize / this.beta ** 2;
    const gradient = dpoGradient(this.logits, chosen, rejected, this.beta);
    for (let i = 0; i < gradient.length; i++) this.logits[i]! -= rate * gradient[i]!;
    this.seen[which]! += 1;
    this.upsets[which]! += Number(upset);
    this.pairs += 1;
  }

  get state(): State {
    return describe(this.logits, this.beta);
  }
}

export type Progress = "start" | "learning" | "there" | "endless";

/** Where a run stands. Its target is known here, as it never is for a language model. */
export function progress(trainer: Trainer): Progress {
  if (trainer.labels === "deterministic") return "endless";
  if (trainer.pairs === 0) return "start";
  const [now, end] = [trainer.state, target(trainer.beta)];
  return Math.abs(now.gap - end.gap) <= 0.3 && Math.abs(now.kl / end.kl - 1) <= 0.05 ? "there" : "learning";
}
