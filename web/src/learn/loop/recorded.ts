/** One recorded batch of a run, put into the boxes of the machine. */
import { get, ofRun, Refusal } from "../../api";
import type { Stage } from "../../math/ppo";
import { fixed, percent, short, signed } from "../../ui/numbers";
import type { Curves, Ratios, Run, TokenRow, TokenTable } from "../../types";
import { ready } from "../../ui/ready";
import { rebinned } from "./bins";
import { HELP, mean, onceOnly, type AnswerView, type Fact, type ModelName } from "./view";

export interface Recorded {
  run: Run;
  tokens: TokenTable;
  /** null where this step's ratios were not kept. */
  ratios: Ratios | null;
  /** Metrics of the step by name. */
  metrics: Record<string, number | null>;
}

const METRICS = ["reward", "kl", "kl_coef", "num_groups", "num_tokens", "completions/mean_length", "explained_variance", "entropy", "approx_kl", "clip/gradient_zero", "clip/outside_band", "ratio/max", "value_loss", "grad_norm", "learning_rate"];

/** Everything about one step; the last one that has tokens if none is named. Throws a Refusal. */
export async function load(id: string, step: number | undefined): Promise<Recorded> {
  const run = await get<Run>(ofRun(id));
  if (!run.tables.tokens.count) throw new Refusal(404, "This run recorded no values of single tokens: it ran with --no-trace, or its first step is not done.", "oneloop train ppo --model M --data D --reward R --out runs/my-ppo");
  const tokens = await get<TokenTable>(ofRun(id, "/tokens", { step }));
  if (!tokens.rows.some((row) => row.kind === "rollout")) throw new Refusal(404, `This run (${run.algorithm}) samples nothing, so it has no such loop: it learns from fixed data.`, "oneloop train ppo --model M --data D --reward R --out runs/my-ppo");
  const [ratios, curves] = await Promise.all([
    run.tables.ratios.count ? get<Ratios>(ofRun(id, "/ratios", { step: tokens.step })).catch(() => null) : null,
    ready(id).then(() => get<Curves>(ofRun(id, "/curves", { names: METRICS, x: "step", from: tokens.step, to: tokens.step, points: 4 }))).catch(() => null),
  ]);
  return { run, tokens, ratios, metrics: Object.fromEntries((curves?.series ?? []).map((series) => [series.name, series.y.at(-1) ?? null])) };
}

function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function size(value: number | null): number | null {
  return value === null ? null : Math.abs(value);
}

/** How many of a row's passes lie at or before an update; the last of them is what that update saw. */
function passes(row: TokenRow, update: number): number {
  return row.update.filter((index) => index <= update).length;
}

/** Every stage's number of one row. Â here is Â before whitening where there is a critic: return − value. */
export function answer(row: TokenRow, { run, metrics }: Recorded, update: number): AnswerView {
  const beta = metrics.kl_coef ?? number(run.explain.beta);
  const [gamma, lam] = [number(run.explain.gamma), number(run.explain.lam)];
  const advantages = row.return && row.value ? row.return.map((target, t) => target - row.value![t]!) : row.advantage;
  const seen = passes(row, update);
  const [now, old] = [row.lp_new?.[seen - 1], row.lp_old];
  // where the penalty goes is not known of runs that do not say it
  const penalised = run.explain.kl_at === "reward" && beta !== null && row.lp_old && row.lp_ref;
  const rewards = run.explain.kl_at === undefined ? null : row.text.map((_, t) => (penalised ? -beta * (row.lp_old![t]! - row.lp_ref![t]!) : 0) + (t === row.text.length - 1 ? (row.reward ?? 0) : 0));
  return {
    name: `${row.group + 1}.${row.sample + 1}`,
    text: `${row.prompt} → ${row.text.join("")}`,
    score: row.score ?? row.reward,
    tokens: row.text.map((text, t) => ({
      text,
      logpOld: row.lp_old?.[t] ?? row.lp_sampler?.[t] ?? null,
      logpRef: row.lp_ref?.[t] ?? null,
      reward: rewards?.[t] ?? null,
      value: row.value?.[t] ?? null,
      // Â_t = δ_t + γλ Â_(t+1), solved for δ_t
      delta: row.value && advantages && gamma !== null && lam !== null ? advantages[t]! - gamma * lam * (advantages[t + 1] ?? 0) : null,
      advantage: advantages?.[t] ?? null,
      return: row.return?.[t] ?? null,
      ratio: now && old ? Math.exp(now[t]! - old[t]!) : null,
      clipped: row.outcome?.[seen - 1]?.[t] === 2,
    })),
  };
}

export function spike({ ratios }: Recorded, update: number): number[] {
  if (!ratios) return [];
  const counts = ratios.edges.slice(1).map((_, i) => (ratios.positive[update]?.[i] ?? 0) + (ratios.negative[update]?.[i] ?? 0) + (ratios.zero[update]?.[i] ?? 0));
  return rebinned(ratios.edges, counts);
}

export function facts(recorded: Recorded, update: number): Record<Stage, Fact[]> {
  const { metrics, tokens, ratios, run } = recorded;
  const rows = tokens.rows;
  const views = rows.map((row) => answer(row, recorded, update));
  const known = (values: readonly (number | null)[]): number[] => values.filter((value) => value !== null);
  const average = (values: readonly (number | null)[], write: (value: number) => string): string => (known(values).length ? write(mean(known(values))) : "–");
  const of = (name: string, write: (value: number | null | undefined) => string): string => write(metrics[name]);
  const each = views.flatMap((view) => view.tokens);
  const critic = has(recorded, "value");
  return {
    sample: [
      { name: "groups", value: of("num_groups", (value) => short(value)), help: "Prompts of this step; each has one group of answers." },
      { name: "tokens", value: of("num_tokens", (value) => short(value)), help: "Action tokens of this step." },
      { name: "mean length", value: of("completions/mean_length", (value) => fixed(value, 1)), help: "Mean length of an answer, tokens." },
    ],
    score: [
      { name: "mean reward", value: of("reward", (value) => fixed(value, 3)), help: "Mean over the answers of the step, before any penalty." },
      { name: "KL to reference", value: of("kl", (value) => fixed(value, 4)), help: "Mean estimate per action token, nats." },
      { name: "β", value: short(metrics.kl_coef ?? number(run.explain.beta)), help: "Price of a nat of KL in this step." },
    ],
    values: critic
      ? [
          { name: "mean V", value: average(each.map((token) => token.value), (value) => fixed(value, 3)), help: "Mean of the critic's values over the recorded answers, units of reward." },
          { name: "critic explains", value: of("explained_variance", (value) => percent(value)), help: HELP.explained },
        ]
      : [{ name: "no critic", value: "–", help: "This method compares the answers of a group instead." }],
    gae: [
      ...(critic ? [{ name: "mean |δ|", value: average(each.map((token) => size(token.delta)), (value) => fixed(value, 3)), help: "Mean surprise over the recorded answers, units of reward." }] : []),
      { name: "mean |Â|", value: average(each.map((token) => size(token.advantage)), (value) => fixed(value, 3)), help: critic ? "Mean size of the advantages of the recorded answers, before whitening." : "Mean size of the advantages of the recorded answers, within their groups." },
    ],
    update: [
      { name: "update", value: ratios ? `${update + 1} of ${ratios.updates}` : "–", help: "Optimizer steps on this batch." },
      { name: "largest ρ", value: of("ratio/max", (value) => fixed(value, 3)), help: "Largest π_θ/π_old of any token in any update of this step." },
      { name: "gradient 0", value: of("clip/gradient_zero", (value) => percent(value, 1)), help: "Share of tokens whose gradient the clip made 0, mean over the updates." },
      ...(critic ? [{ name: "value loss", value: of("value_loss", (value) => fixed(value, 4)), help: HELP.valueLoss }] : []),
    ],
    sync: [
      { name: "move, nats", value: of("approx_kl", (value) => short(value)), help: "KL(π_old ‖ π_θ): how far the updates moved the policy from the one that sampled, mean per token." },
      { name: "gradient norm", value: of("grad_norm", (value) => fixed(value, 3)), help: "Before clipping, mean over the updates." },
      { name: "learning rate", value: of("learning_rate", (value) => short(value)), help: "Of the policy in this step." },
    ],
  };
}

function has({ tokens }: Recorded, column: "value" | "lp_ref"): boolean {
  return tokens.rows.some((row) => row[column] !== null);
}

function setting({ run }: Recorded, name: string): string {
  return run.config.find((one) => one.name === name)?.value ?? "";
}

export function models(recorded: Recorded): Record<ModelName, { note: string; absent?: boolean }> {
  const reward = setting(recorded, "reward_model");
  return {
    policy: { note: recorded.run.model ?? "" },
    critic: has(recorded, "value") ? { note: "learns beside the policy" } : { note: "a group's mean takes its place", absent: true },
    reference: has(recorded, "lp_ref") ? { note: "the policy before training" } : { note: "no KL to it is taken", absent: true },
    reward: reward ? { note: reward } : { note: "a rule gives the reward", absent: true },
  };
}

/** What the boxes do in this run, where it is not what PPO does. */
export function instead(recorded: Recorded): Partial<Record<Stage, string>> {
  const score = setting(recorded, "reward_model") ? "reward model" : "a rule, not a model";
  const place = recorded.run.explain.kl_at;
  return {
    score: place === "loss" ? `${score}; β·KL stands in the loss` : place === "reward" ? `${score}, minus β·KL per token` : score,
    ...(has(recorded, "value") ? {} : { values: "no critic: nothing to ask", gae: "reward against the other answers of its group" }),
  };
}

/** The sentence for batches that are used once. */
export function once({ ratios, run }: Recorded): string | null {
  if (!ratios) return null;
  if (ratios.updates === 1) return onceOnly(1, 1);
  return number(run.explain.epochs) === 1 ? onceOnly(1, ratios.updates) : null;
}

export function summary({ run, tokens }: Recorded): string {
  return `Step ${tokens.step + 1} of ${run.name}: ${tokens.rows.length} answers of it were recorded token by token; the means of the boxes are of the whole step where they say so. Rewards of single tokens: ${run.explain.kl_at === undefined ? "not known of this run" : run.explain.kl_at === "reward" ? `${signed(-(number(run.explain.beta) ?? 0), 3)} per nat, and the score at the last token` : "the score, at the last token"}.`;
}
