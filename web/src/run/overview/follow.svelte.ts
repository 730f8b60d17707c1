/** Curves of a run that grow while it goes on: all of them once, then only the bytes that were written since. */
import { get, ofRun, Refusal } from "../../api";
import { report } from "../../report";
import type { Curves, Series } from "../../types";
import { poll } from "../../ui/poll";
import { append, spreadName, type MetricRow } from "./append";

interface Metrics {
  offset: number;
  rows: MetricRow[];
  reset: boolean;
  mark: string;
}

export interface Following {
  readonly series: readonly Series[];
  /** Share of the file that has been read: below 1 for a moment where it is large. */
  readonly ready: number;
  readonly refusal: Refusal | null;
}

const POINTS = 1000;
/** Beyond this many points, the server is asked for fewer again. */
const MOST = 4 * POINTS;

/** Call it while a component is set up. `names` may be empty; `live` says whether more is to come. */
export function follow(id: () => string, names: () => readonly string[], live: () => boolean): Following {
  let series = $state.raw<readonly Series[]>([]);
  let ready = $state(0);
  let refusal = $state.raw<Refusal | null>(null);
  const key = $derived(JSON.stringify([id(), names()]));

  $effect(() => {
    const [run, wanted] = JSON.parse(key) as [string, string[]];
    if (wanted.length === 0) {
      series = [];
      ready = 1;
      return;
    }
    const columns = [...new Set(wanted.flatMap((name) => [name, spreadName(name)]))];
    let [offset, mark, whole] = [0, "", false];

    async function all(signal: AbortSignal): Promise<void> {
      const found = await get<Curves>(ofRun(run, "/curves", { names: wanted, points: POINTS }), signal);
      if (signal.aborted) return;
      [series, ready, refusal] = [found.series, found.ready, null];
      [offset, mark, whole] = [found.offset, "", found.ready >= 1];
    }
    async function since(signal: AbortSignal): Promise<void> {
      const found = await get<Metrics>(ofRun(run, "/metrics", { offset, mark: mark || undefined, names: columns }), signal);
      if (signal.aborted) return;
      const unseen = found.rows.some((row) => wanted.some((name) => typeof row[name] === "number" && !series.some((one) => one.name === name)));
      if (found.reset || unseen || series.some((one) => one.x.length > MOST)) return all(signal);
      [series, offset, mark, refusal] = [append(series, found.rows), found.offset, found.mark, null];
    }
    return poll(async (signal) => {
      const more = live() && report === null; // before it is asked: what a run writes last is read then
      try {
        await (whole ? since(signal) : all(signal));
      } catch (error) {
        if (signal.aborted) return false;
        refusal = error instanceof Refusal ? error : new Refusal(0, String(error), "");
        throw error; // asked again, more slowly
      }
      return whole ? more : report === null && "soon";
    });
  });
  return {
    get series() {
      return series;
    },
    get ready() {
      return ready;
    },
    get refusal() {
      return refusal;
    },
  };
}
