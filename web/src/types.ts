/** What the server answers. Steps are indices from 0; numbers that are not finite are null. */

export type Status = "starting" | "running" | "finished" | "failed" | "stopped" | "killed" | "gone" | "unreadable";

export interface RunLine {
  id: string;
  name: string;
  path: string;
  kind: "oneloop" | "trl" | "verl";
  status: Status;
  words: string;
  algorithm: string | null;
  model: string | null;
  seed: number | null;
  steps_done: number;
  steps_total: number | null;
  started: number | null;
  heartbeat: number | null;
  alerts: number;
  spark: (number | null)[];
  spark_name: string | null;
}

export interface TableFacts {
  count: number;
  /** Stretches of evenly spaced steps: the first, the last, and how far apart they lie. */
  spans: [first: number, last: number, apart: number][];
}

export interface Run extends RunLine {
  info: Record<string, unknown>;
  config: { name: string; value: string; default: string | null; changed: boolean }[];
  objective: string | null;
  lacks: string[];
  tables: Record<"rollouts" | "ratios" | "tokens" | "pairs", TableFacts>;
  metrics: string[];
  /** Share of the metrics that has been read: below 1 for a moment where the file is large, and names may be missing. */
  ready: number;
  x: { tokens: boolean };
  explain: Record<string, string | number | boolean | null>;
}

export interface Series {
  name: string;
  x: number[];
  y: (number | null)[];
  low: (number | null)[] | null;
  high: (number | null)[] | null;
  n: number;
}

export interface Curves {
  offset: number;
  x: "step" | "tokens" | "time";
  ready: number;
  series: Series[];
}

export interface Event {
  step: number;
  level: "alert" | "info";
  code: string;
  text: string;
  fix: string;
}

export interface Light {
  name: string;
  level: "ok" | "warn" | "bad" | "none";
  value: number | null;
  unit: string;
  words: string;
  code: string | null;
  fix: string | null;
}

export interface RolloutRow {
  row: number;
  group: number;
  sample: number;
  prompt: string;
  completion: string;
  cut: boolean;
  rewards: Record<string, number | null>;
  reward: number | null;
  advantage: number | null;
  /** In tokens; null where a run of another library says none. */
  length: number | null;
  stop: string | null;
  kept: boolean;
  answer: string | null;
  target: string | null;
  extras: Record<string, string | null>;
  /** In an environment: turns of the policy, what was said in them (not in lists), and why the environment failed. */
  turns: number | null;
  episode: Piece[] | null;
  error: string | null;
  /** In a report: characters of each text that it does not hold. */
  rest?: { prompt: number; completion: number } | null;
}

/** A turn of the policy, or what its environment answered to one. */
export interface Piece {
  chosen: boolean;
  /** `rest`: characters that a report does not hold. */
  messages: { role: string; text: string; rest: number }[];
  /** Chosen by the policy, or read by it; 0 where the episode was over; null where the file does not say. */
  tokens: number | null;
  /** Of the policy's turns, as the environment answered them. */
  reward: number | null;
  advantage: number | null;
  terminated: boolean;
  truncated: boolean;
  calls: { name: string; arguments: string; answer: string; rest: number }[];
}

interface Stepped {
  step: number;
}

export interface Rollouts extends Stepped {
  columns: string[];
  rows: RolloutRow[];
}

export interface RatioRow {
  group: number;
  sample: number;
  truncated: boolean;
  update: number[];
  advantage: number[];
  log_ratio: number[][];
  ref_gap: number[] | null;
  mismatch: number[] | null;
}

export interface Ratios extends Stepped {
  updates: number;
  /** null as a whole where nothing is cut, on one side where that side is open. */
  epsilon: [number | null, number | null] | null;
  edges: (number | null)[];
  positive: number[][];
  negative: number[][];
  zero: number[][];
  rows: RatioRow[] | null;
}

export interface TokenRow {
  group: number;
  sample: number;
  kind: "rollout" | "chosen" | "rejected" | "demonstration" | "rated";
  prompt: string;
  text: string[];
  id: number[];
  lp_sampler: number[] | null;
  lp_old: number[] | null;
  lp_ref: number[] | null;
  entropy: number[] | null;
  value: number[] | null;
  return: number[] | null;
  advantage: number[] | null;
  update: number[];
  lp_new: number[][];
  outcome: number[][];
  reward: number | null;
  stop: string | null;
  score: number | null;
  /** What an environment said: for each of its tokens, the tokens of `text` before it. */
  masked_at?: number[] | null;
  masked_text?: string[] | null;
  masked_id?: number[] | null;
}

export interface TokenTable extends Stepped {
  rows: TokenRow[];
}

export interface PairRow {
  pair: number;
  prompt: string;
  chosen: string;
  rejected: string;
  logp_chosen: number;
  logp_rejected: number;
  ref_chosen: number | null;
  ref_rejected: number | null;
  chosen_tokens: number;
  rejected_tokens: number;
  margin: number | null;
  weight: number | null;
}

export interface Pairs extends Stepped {
  rows: PairRow[];
}

/** What `oneloop plan --against RUN` keeps of its bill, in bytes. */
export interface Bill {
  table: Record<string, Record<string, number>>;
  phases: { name: string; parts: Record<string, number> }[];
}

export interface Plan extends Bill {
  lengths: { prompt: number; answer: number; source: string };
  /** The bills of the same run with one setting changed. Plans of older versions have none. */
  changes?: ({ flag: string; why: string } & Bill)[];
}

/** Bytes by step: `rss`, `peak_rss`, `start_rss`, `phase/rollout`, …; on a GPU `cuda_peak` too, and then phases are the GPU's. */
export type MemoryRow = { step: number } & Record<string, number>;

export interface Memory {
  plan: Plan | null;
  measured: MemoryRow[];
}

export interface Comparison {
  configs: { name: string; values: (string | null)[] }[];
  evaluation: { metric: string; pairs: number; difference: number; low: number; high: number; words: string } | null;
  prompts: { prompt: string; rows: (ComparedRow | null)[] }[];
  seeds: Record<string, number | null>;
  words: string[];
}

export interface ComparedRow {
  step: number;
  row: number;
  completion: string;
  reward: number | null;
  advantage: number | null;
  length: number;
  stop: string;
}

/** What a report says of its runs beside the other answers. */
export interface ReportFacts {
  title: string;
  notes: string[];
  tables: { header: string[]; rows: string[][]; caption: string }[];
  runs: ReportRun[];
  /** Metrics and what they are, those of the first look and those folded away. */
  curves: Record<string, string>;
  more: Record<string, string>;
  /** What there was no room for. */
  left: string[];
  /** Two to four runs laid side by side. */
  compared: Comparison | null;
}

export interface ReportRun {
  id: string;
  name: string;
  minutes: number | null;
  /** Values that were not finite, by metric. */
  missing: Record<string, number>;
  samples: { step: number; count: number; unscored: number; error: string | null }[];
}
