/** The recorded steps of a table: not every step has one, and those that have need not lie evenly. */
import type { TableFacts } from "../types";

/** Every recorded step, in order. */
export function recorded({ spans }: TableFacts): number[] {
  return spans.flatMap(([first, last, apart]) => Array.from({ length: (last - first) / apart + 1 }, (_, i) => first + i * apart));
}

/** The recorded step next to one, the earlier of two equally near; the step itself where none is recorded. */
export function nearest(step: number, facts: TableFacts): number {
  return recorded(facts).reduce((best, other) => (Math.abs(other - step) < Math.abs(best - step) ? other : best), facts.spans[0]?.[0] ?? step);
}

export function before(step: number, facts: TableFacts): number | null {
  return recorded(facts).findLast((other) => other < step) ?? null;
}

export function after(step: number, facts: TableFacts): number | null {
  return recorded(facts).find((other) => other > step) ?? null;
}

export function last({ spans }: TableFacts): number | null {
  return spans.at(-1)?.[1] ?? null;
}

/** Of what is recorded at each of the first so many steps. */
export function everyStep(count: number): TableFacts {
  return { count, spans: [[0, count - 1, 1]] };
}
