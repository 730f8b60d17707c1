/** The rows of a step as the reader wants them: a histogram to choose from, a filter, an order. */
import type { RolloutRow } from "../../types";

export interface Bin {
  low: number;
  /** The bin holds low ≤ value < high; the last one, and one of a single value, holds high as well. */
  high: number;
  closed: boolean;
  count: number;
}

const BINS = 20;

/** A bin for each value where there are few values; else 20 of equal width. */
export function bins(values: readonly (number | null)[], most = BINS): Bin[] {
  const numbers = values.filter((value): value is number => value !== null);
  const counts = new Map<number, number>();
  for (const value of numbers) counts.set(value, (counts.get(value) ?? 0) + 1);
  if (counts.size <= most) {
    return [...counts].sort(([a], [b]) => a - b).map(([value, count]) => ({ low: value, high: value, closed: true, count }));
  }
  const [from, to] = numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const edge = (i: number): number => (i === most ? to : from + ((to - from) * i) / most);
  const out = Array.from({ length: most }, (_, i): Bin => ({ low: edge(i), high: edge(i + 1), closed: i === most - 1, count: 0 }));
  for (const value of numbers) {
    const guess = Math.min(Math.floor(((value - from) / (to - from)) * most), most - 1);
    // rounding may put an edge on its wrong side
    const at = [guess, guess - 1, guess + 1].find((i) => out[i] && holds(out[i], value)) ?? guess;
    out[at]!.count += 1;
  }
  return out;
}

export function holds({ low, high, closed }: Pick<Bin, "low" | "high" | "closed">, value: number | null): boolean {
  return value !== null && value >= low && (closed ? value <= high : value < high);
}

/** What a column shows of a row: the reward, the advantage, the length, or one reward function. */
export function valueOf(row: RolloutRow, column: string): number | string | null {
  switch (column) {
    case "row":
    case "group":
    case "sample":
    case "length":
    case "turns":
    case "reward":
    case "advantage":
    case "prompt":
    case "completion":
    case "stop":
    case "answer":
    case "target":
      return row[column];
    default:
      return row.rewards[column.slice("reward:".length)] ?? null;
  }
}

/** `column` or `-column`, from the largest. Rows without a value come last; equal ones keep their order. */
export function sorted(rows: readonly RolloutRow[], order: string): readonly RolloutRow[] {
  if (order === "") return rows;
  const down = order.startsWith("-");
  const column = down ? order.slice(1) : order;
  return [...rows].sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1;
    const sign = x < y ? -1 : x > y ? 1 : 0;
    return down ? -sign : sign;
  });
}

export function containing(rows: readonly RolloutRow[], text: string): readonly RolloutRow[] {
  const wanted = text.toLowerCase();
  return wanted === "" ? rows : rows.filter((row) => row.prompt.toLowerCase().includes(wanted) || row.completion.toLowerCase().includes(wanted));
}

/** Which rows of a long list are in sight, and a few more. */
export function inSight(top: number, height: number, tall: number, count: number, spare = 8): [number, number] {
  const first = Math.max(0, Math.floor(top / tall) - spare);
  return [first, Math.min(count, Math.ceil((top + height) / tall) + spare)];
}
