/** A memory plan beside what a run took. All numbers are bytes. */
import type { Bill, MemoryRow, Plan } from "../../types";

/** Phases by the name that the plan has and the one that the run measured. */
const PHASES = [
  { plan: "rollout", measured: "phase/rollout" },
  { plan: "evaluate", measured: "phase/evaluation" },
  { plan: "prepare", measured: "phase/prepare" },
  { plan: "update", measured: "phase/update" },
] as const;

export interface PhaseLine {
  name: string;
  /** Parts of the plan, the largest first; null without a plan for it. */
  parts: [string, number][] | null;
  planned: number | null;
  measured: number | null;
  /** planned / measured − 1. */
  error: number | null;
}

/** On a GPU its memory was measured; else what the process took above what it held before the models were loaded. */
export function onGpu(measured: readonly MemoryRow[]): boolean {
  return measured.some((row) => row.cuda_peak !== undefined);
}

/** The most that each phase took in any step, beside the plan. Phases that neither has are left out. */
export function phases(plan: Plan | null, measured: readonly MemoryRow[]): PhaseLine[] {
  const gpu = onGpu(measured);
  return PHASES.flatMap(({ plan: name, measured: key }) => {
    const planned = plan?.phases.find((phase) => phase.name === name);
    const most = highest(measured, key, gpu);
    if (!planned && most === null) return [];
    return [line(name, planned?.parts ?? null, most)];
  });
}

/** The bill with one setting changed; the run's own where nobody planned that change. */
export function changed(plan: Plan, flag: string): { bill: Bill; why: string; peak: number; difference: number } {
  const change = plan.changes?.find((one) => one.flag === flag);
  const [own, peak] = [most(plan), most(change ?? plan)];
  return { bill: change ?? plan, why: change?.why ?? "", peak, difference: peak - own };
}

function most(bill: Bill): number {
  return Math.max(...bill.phases.map((phase) => total(phase.parts)));
}

/** The whole run: its plan's largest phase beside its highest step. */
export function whole(plan: Plan | null, measured: readonly MemoryRow[]): PhaseLine {
  const gpu = onGpu(measured);
  const largest = plan?.phases.reduce((a, b) => (total(b.parts) > total(a.parts) ? b : a));
  return line("peak", largest?.parts ?? null, highest(measured, gpu ? "cuda_peak" : "peak_rss", gpu));
}

export function total(parts: Record<string, number>): number {
  return Object.values(parts).reduce((sum, part) => sum + part, 0);
}

/** Models and items of the bill, without the models that are left out. Items keep their places, so that colours do. */
export function stacks(plan: Bill, without: ReadonlySet<string>): { items: string[]; models: { name: string; sizes: number[]; total: number }[] } {
  const items = [...new Set(Object.values(plan.table).flatMap((sizes) => Object.keys(sizes)))];
  const models = Object.entries(plan.table)
    .filter(([name]) => !without.has(name))
    .map(([name, sizes]) => ({ name, sizes: items.map((item) => sizes[item] ?? 0), total: total(sizes) }));
  return { items, models };
}

function line(name: string, parts: Record<string, number> | null, measured: number | null): PhaseLine {
  const planned = parts && total(parts);
  const sorted = parts && Object.entries(parts).filter(([, part]) => part > 0);
  sorted?.sort((a, b) => b[1] - a[1]);
  const error = planned !== null && measured !== null && measured > 0 ? planned / measured - 1 : null;
  return { name, parts: sorted, planned, measured, error };
}

function highest(rows: readonly MemoryRow[], key: string, gpu: boolean): number | null {
  const values = rows.flatMap((row) => (row[key] === undefined ? [] : [row[key] - (gpu ? 0 : (row.start_rss ?? 0))]));
  return values.length ? Math.max(...values) : null;
}
