/** Lengths over the steps of a run, from some of its recorded steps, read one after another. */
import { get, ofRun, Refusal } from "../../api";
import type { RolloutRow, Rollouts } from "../../types";

export interface Read {
  step: number;
  rows: readonly RolloutRow[];
}

export interface History {
  readonly read: readonly Read[];
  /** Whether all that was wanted has been asked for. */
  readonly done: boolean;
}

/** Call it while a component is set up. A step is read once; one that is gone by then is left out. */
export function history(id: () => string, steps: () => readonly number[]): History {
  let read = $state.raw<readonly Read[]>([]);
  let done = $state(false);
  const key = $derived(JSON.stringify([id(), steps()]));
  let of = "";
  let known = new Map<number, readonly RolloutRow[]>();

  $effect(() => {
    const [run, wanted] = JSON.parse(key) as [string, number[]];
    const leave = new AbortController();
    if (of !== run) [of, known] = [run, new Map()];
    const show = () => (read = wanted.filter((step) => known.has(step)).map((step) => ({ step, rows: known.get(step)! })));
    done = false;
    (async () => {
      for (const step of wanted) {
        if (!known.has(step)) {
          const answer = await get<Rollouts>(ofRun(run, "/rollouts", { step }), leave.signal).catch((error: unknown) => {
            if (leave.signal.aborted || error instanceof Refusal) return null;
            throw error;
          });
          if (leave.signal.aborted) return;
          if (answer) known.set(step, answer.rows);
        }
        show();
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
