/** What the boxes of the machine hold, whether a toy or a recorded run filled them. */
import { WORDS } from "../../math/chain";
import { STAGES, text, type Machine, type Settings, type Stage } from "../../math/ppo";
import { fixed, percent, signed } from "../../ui/numbers";

export interface Fact {
  name: string;
  value: string;
  /** Definition and unit. */
  help: string;
}

/** null: not computed yet, or the method has no such thing. */
export interface TokenView {
  text: string;
  logpOld: number | null;
  logpRef: number | null;
  reward: number | null;
  value: number | null;
  delta: number | null;
  advantage: number | null;
  return: number | null;
  ratio: number | null;
  clipped: boolean;
}

export interface AnswerView {
  name: string;
  text: string;
  score: number | null;
  tokens: TokenView[];
}

export interface View {
  facts: Record<Stage, Fact[]>;
  answers: AnswerView[];
  /** ρ at the newest update; empty before the first. */
  ratios: number[];
  /** Optimizer steps of this batch, done and planned. */
  updates: { done: number; planned: number };
}

export type ModelName = "policy" | "critic" | "reference" | "reward";

/** Which of the four models a stage asks, and which it changes. */
export const USES: Record<Stage, readonly ModelName[]> = {
  sample: ["policy"],
  score: ["reward", "reference"],
  values: ["critic"],
  gae: [],
  update: ["policy", "critic"],
  sync: ["policy"],
};

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** 1 − Var(R − V)/Var(R); null where the returns do not vary. */
function explained(returns: readonly number[], values: readonly number[]): number | null {
  const spread = (some: readonly number[]) => mean(some.map((value) => (value - mean(some)) ** 2));
  return spread(returns) > 0 ? 1 - spread(returns.map((target, i) => target - values[i]!)) / spread(returns) : null;
}

export const HELP = {
  score: "Mean of the reward model's scores over the answers of this batch.",
  kl: "Mean over answers of Σ_t (log π_old − log π_ref), nats: how far the policy has moved from the reference, as this batch shows it.",
  explained: "1 − Var(R̂ − V)/Var(R̂): 1 when the critic is perfect, 0 when it is no better than a constant, negative when worse.",
  ratio: "Smallest and largest π_θ/π_old of the tokens of this update, before its gradient.",
  clipped: "Share of this update's tokens whose gradient the clip made 0.",
  valueLoss: "Mean ½(V − R̂)² of this update's tokens.",
} as const;

/** The toy's batch, as far as the loop has come with it. */
export function ofMachine(machine: Machine, settings: Settings): View {
  const { answers, actions, updates } = machine;
  const reached = machine.done === null ? -1 : STAGES.indexOf(machine.done);
  const has = (stage: Stage): boolean => reached >= STAGES.indexOf(stage);
  const when = (stage: Stage, value: () => string): string => (has(stage) ? value() : "–");
  const newest = updates.at(-1);
  const column = (of: (action: (typeof actions)[number]) => number): number[] => actions.map(of);
  const gap = () => mean(answers.map((answer) => answer.actions.reduce((sum, a) => sum + a.logpOld - a.logpRef, 0)));
  const ratios = newest?.ratios ?? [];
  const standing = machine.standing();
  return {
    facts: {
      sample: [
        { name: "answers", value: when("sample", () => String(answers.length)), help: "Answers sampled from π_old, three words each." },
        { name: "all right", value: when("sample", () => String(answers.filter(({ words }) => text(words) === "the cat sat").length)), help: "How many of them are “the cat sat”." },
      ],
      score: [
        { name: "mean score", value: when("score", () => fixed(mean(answers.map((answer) => answer.score)), 3)), help: HELP.score },
        { name: "KL of an answer", value: when("score", () => `${fixed(gap(), 3)} nats`), help: HELP.kl },
        { name: "score − β·KL", value: when("score", () => signed(mean(answers.map((answer) => answer.actions.reduce((sum, a) => sum + a.reward, 0))), 3)), help: "Mean reward of an answer after the penalty: what PPO climbs." },
      ],
      values: [
        { name: "V(nothing written)", value: when("values", () => fixed(actions[0]?.value, 3)), help: "What the critic expects of an answer before its first word, in units of reward." },
        { name: "mean V", value: when("values", () => fixed(mean(column((a) => a.value)), 3)), help: "Mean of the critic's values over all tokens of the batch." },
      ],
      gae: [
        { name: "mean |δ|", value: when("gae", () => fixed(mean(column((a) => Math.abs(a.delta))), 3)), help: "Mean size of the surprise δ = r + V(next) − V, in units of reward." },
        { name: "std Â", value: when("gae", () => fixed(Math.sqrt(mean(column((a) => (a.advantage - mean(column((b) => b.advantage))) ** 2))), 3)), help: "Spread of the advantages. The policy sees them divided by it (whitened)." },
        { name: "critic explains", value: when("gae", () => percent(explained(column((a) => a.return), column((a) => a.value)))), help: HELP.explained },
      ],
      update: [
        { name: "update", value: newest ? `${updates.length} of ${machine.steps}` : "–", help: "Optimizer steps on this batch: K epochs times the minibatches of one." },
        { name: "ρ", value: newest ? span(ratios) : "–", help: HELP.ratio },
        { name: "gradient 0", value: newest ? percent(newest.clipped) : "–", help: HELP.clipped },
        { name: "value loss", value: newest ? fixed(newest.valueLoss, 4) : "–", help: HELP.valueLoss },
      ],
      sync: [
        { name: "loops", value: String(machine.loops), help: "Batches that were sampled, trained on and left behind." },
        { name: "E[score]", value: fixed(standing.score, 3), help: "Exact expected score of π_θ, over all 64 answers." },
        { name: "KL(π_θ ‖ π_ref)", value: `${fixed(standing.kl, 3)} nats`, help: "Exact, of whole answers." },
      ],
    },
    answers: answers.map((answer, i) => ({
      name: String(i + 1),
      text: text(answer.words),
      score: has("score") ? answer.score : null,
      tokens: answer.actions.map((action) => ({
        text: WORDS[action.word]!,
        logpOld: action.logpOld,
        logpRef: has("score") ? action.logpRef : null,
        reward: has("score") ? action.reward : null,
        value: has("values") ? action.value : null,
        delta: has("gae") ? action.delta : null,
        advantage: has("gae") ? action.advantage : null,
        return: has("gae") ? action.return : null,
        ratio: action.ratio,
        clipped: action.clipped,
      })),
    })),
    ratios,
    updates: { done: updates.length, planned: machine.steps || settings.epochs * settings.minibatches },
  };
}

export function span(ratios: readonly number[]): string {
  const [low, high] = [Math.min(...ratios), Math.max(...ratios)];
  return low === high ? fixed(low, 3) : `${fixed(low, 3)} … ${fixed(high, 3)}`;
}

/** Why ρ is what it is when a batch is used once. null where it is used more often. */
export function onceOnly(epochs: number, minibatches: number): string | null {
  if (epochs !== 1) return null;
  if (minibatches === 1) return "With one optimizer step per batch π_θ is still π_old when the gradient is taken: ρ is exactly 1 at every token, the clip never fires, and a plot of ρ is one spike.";
  return `With K = 1 and ${minibatches} minibatches ρ is exactly 1 at the first optimizer step of each batch only; the later ones see a policy that has already moved.`;
}

