/** Waits until the server has read the whole of a run's metrics: until then it knows a part of the names and points. */
import { get, ofRun } from "../api";
import type { Curves } from "../types";

const PAUSE = 300;
/** After a minute what there is has to do. */
const TRIES = 200;

export async function ready(id: string): Promise<void> {
  for (let i = 0; i < TRIES; i++) {
    if ((await get<Curves>(ofRun(id, "/curves"))).ready >= 1) return;
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}
