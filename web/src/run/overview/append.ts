/** New lines of a run's metrics, put behind the curves that are shown. */
import type { Series } from "../../types";

export type MetricRow = { step: number } & Record<string, number | null>;

/** Where the standard deviation of a metric stands: the server's rule. */
export function spreadName(name: string): string {
  return name.endsWith("/mean") ? `${name.slice(0, -"/mean".length)}/std` : `${name}_std`;
}

export function append(series: readonly Series[], rows: readonly MetricRow[]): Series[] {
  return series.map((one) => {
    const last = one.x.at(-1) ?? -Infinity;
    const fresh = rows.filter((row) => row.step > last && typeof row[one.name] === "number");
    if (fresh.length === 0) return one;
    const values = fresh.map((row) => row[one.name]!);
    const spreads = fresh.map((row) => row[spreadName(one.name)] ?? 0);
    const band = (old: readonly (number | null)[] | null, sign: number) => (old ? [...old, ...values.map((value, i) => value + sign * spreads[i]!)] : null);
    return {
      ...one,
      x: [...one.x, ...fresh.map((row) => row.step)],
      y: [...one.y, ...values],
      low: band(one.low, -1),
      high: band(one.high, 1),
      n: one.n + fresh.length,
    };
  });
}

/** A running mean that forgets: m ← w·m + (1 − w)·y, begun at the first value. */
export function smoothed(values: readonly (number | null)[], weight: number): (number | null)[] {
  let mean: number | null = null;
  return values.map((value) => {
    if (value === null) return null;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
}
