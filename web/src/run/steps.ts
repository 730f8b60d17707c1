/** Steps of a run, and which of them a table has. */
import type { Run, RunLine, TableFacts } from "../types";

/** Whether more of it is to come. */
export function going(run: RunLine): boolean {
  return run.status === "running" || run.status === "starting";
}

/** The recorded step next to one; tables of long runs keep one step in so many. */
export function nearest(step: number, { first, last, stride }: TableFacts): number {
  const [from, to, every] = [first ?? step, last ?? step, stride ?? 1];
  const inside = Math.min(Math.max(step, from), to);
  // the last step is kept whether or not the stride meets it
  return to - inside < every / 2 ? to : from + Math.round((inside - from) / every) * every;
}

/** The step after one, of a table that has grown since it was read. */
export function following(step: number, facts: TableFacts): number | null {
  return facts.last !== null && facts.last > step ? nearest(step + (facts.stride ?? 1), facts) : null;
}

/** Why a run has no table of these, as the server says it. */
export function lack(run: Run, what: string): string {
  return `This run has ${run.lacks.find((sentence) => sentence.startsWith(`no ${what}`)) ?? `no ${what}`}.`;
}
