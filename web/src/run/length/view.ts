/** Completions of a step by their length, and the steps that the history is read from. */
import { mean } from "../../math/groups";
import type { RolloutRow, TableFacts } from "../../types";
import { recorded } from "../../ui/steps";

export interface Point {
  step: number;
  /** Mean length in tokens; null where there is none. */
  right: number | null;
  wrong: number | null;
  /** Share that the length limit ended. */
  truncated: number | null;
}

export type Measured = RolloutRow & { length: number };

export function isTruncated(row: RolloutRow): boolean {
  return row.stop === "length";
}

function measured(row: RolloutRow): row is Measured {
  return row.length !== null;
}

/** What the step trained on: dropped groups and unscored answers give no loss. */
export function trained(rows: readonly RolloutRow[]): Measured[] {
  return rows.filter(measured).filter((row) => row.kept && row.reward !== null && row.length > 0);
}

/** null where nothing says why they ended. */
export function truncatedShare(rows: readonly RolloutRow[]): number | null {
  const told = rows.filter((row) => row.stop !== null);
  return told.length ? told.filter(isTruncated).length / told.length : null;
}

export function point(step: number, rows: readonly RolloutRow[], bound: number): Point {
  const scored = rows.filter(measured).filter((row) => row.reward !== null);
  const average = (of: readonly Measured[]) => (of.length ? mean(of.map((row) => row.length)) : null);
  return {
    step,
    right: average(scored.filter((row) => row.reward! > bound)),
    wrong: average(scored.filter((row) => row.reward! <= bound)),
    truncated: truncatedShare(rows),
  };
}

/** At most so many of the recorded steps, always the first and the last. */
export function evenly(facts: TableFacts, most: number): number[] {
  return spread(recorded(facts), most);
}

/** At most so many, evenly from the shortest to the longest, and always both. */
export function byLength(rows: readonly Measured[], most: number): Measured[] {
  return spread([...rows].sort((a, b) => a.length - b.length || a.row - b.row), most);
}

function spread<T>(all: readonly T[], most: number): T[] {
  if (all.length <= most) return [...all];
  return Array.from({ length: most }, (_, i) => all[Math.round((i / (most - 1)) * (all.length - 1))]!);
}
