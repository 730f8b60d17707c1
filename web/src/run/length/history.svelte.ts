/** Lengths over the steps of a run, from some of its recorded steps, read one after another. */
import { get, ofRun, Refusal } from "../../api";
import type { RolloutRow, Rollouts, TableFacts } from "../../types";
import { evenly } from "./view";

export interface Read {
  step: number;
  rows: readonly RolloutRow[];
}

export interface History {
  readonly read: readonly Read[];
  /** Whether all that was wanted has been asked for. */
  readonly done: boolean;
}

/** Call it while a component is set up: all recorded steps where they are `most` or fewer, else as many evenly among them.
 *
 * A few steps need not lie evenly, so one names the next. A step that is gone by then is left out.
 */
export function history(id: () => string, facts: () => TableFacts | undefined, most: number): History {
  let read = $state.raw<readonly Read[]>([]);
  let done = $state(false);
  const key = $derived(JSON.stringify([id(), facts() ?? null]));

  $effect(() => {
    const [run, table] = JSON.parse(key) as [string, TableFacts | null];
    const leave = new AbortController();
    [read, done] = [[], false];
    if (table?.first === null || !table) return;
    const one = (step: number) =>
      get<Rollouts>(ofRun(run, "/rollouts", { step }), leave.signal).catch((error: unknown) => {
        if (leave.signal.aborted || error instanceof Refusal) return null;
        throw error;
      });
    const show = (answer: Rollouts | null) => {
      if (answer && !leave.signal.aborted) read = [...read, { step: answer.step, rows: answer.rows }];
      return answer;
    };
    const first = table.first;
    (async () => {
      if (table.count > most) for (const step of evenly(table, most)) show(leave.signal.aborted ? null : await one(step));
      else for (let step: number | null = first; step !== null && !leave.signal.aborted; ) step = show(await one(step))?.next ?? null;
      if (!leave.signal.aborted) done = true;
    })();
    return () => leave.abort();
  });
  return {
    get read() {
      return read;
    },
    get done() {
      return done;
    },
  };
}
