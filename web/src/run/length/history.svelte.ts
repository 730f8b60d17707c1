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

/** Call it while a component is set up: at most so many of the recorded steps. One that is gone by then is left out. */
export function history(id: () => string, facts: () => TableFacts | undefined, most: number): History {
  let read = $state.raw<readonly Read[]>([]);
  let done = $state(false);
  const key = $derived(JSON.stringify([id(), facts() ?? null]));

  $effect(() => {
    const [run, table] = JSON.parse(key) as [string, TableFacts | null];
    const leave = new AbortController();
    [read, done] = [[], false];
    if (!table) return;
    const one = (step: number) =>
      get<Rollouts>(ofRun(run, "/rollouts", { step }), leave.signal).catch((error: unknown) => {
        if (leave.signal.aborted || error instanceof Refusal) return null;
        throw error;
      });
    (async () => {
      for (const step of evenly(table, most)) {
        const answer = await one(step);
        if (leave.signal.aborted) return;
        if (answer) read = [...read, { step: answer.step, rows: answer.rows }];
      }
      done = true;
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
