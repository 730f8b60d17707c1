/** How a run stands with its steps. */
import type { Run, RunLine } from "../types";

/** Whether more of it is to come. */
export function going(run: RunLine): boolean {
  return run.status === "running" || run.status === "starting";
}

/** Why a run has no table of these, as the server says it. */
export function lack(run: Run, what: string): string {
  return `This run has ${run.lacks.find((sentence) => sentence.startsWith(`no ${what}`)) ?? `no ${what}`}.`;
}
