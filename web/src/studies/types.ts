/** What `/api/studies` and `/api/studies/NAME` answer. */
import type { Kind } from "./drawing";

export type Verdict = "holds" | "does not hold here" | "cannot be told";

export interface StudyLine {
  name: string;
  title: string;
  claims: { text: string; verdict: Verdict }[];
}

export interface Point {
  series: string;
  x: number | string;
  mean: number;
  /** The ends of the 95 % interval over seeds. */
  low: number;
  high: number;
  /** Mean and interval in words, as on the study's page in the docs. */
  said: string;
}

export interface Panel {
  key: string;
  quantity: string;
  axis: string;
  x_scale: Kind;
  y_scale: Kind;
  series: string[];
  points: Point[];
}

export interface Study {
  name: string;
  title: string;
  setting: string;
  claims: { text: string; source: string; verdict: Verdict; because: string }[];
  told: string;
  panels: Panel[];
  command: string;
  seeds: number[];
  date: string;
  seconds: number;
  machine: Record<string, string | number>;
}
