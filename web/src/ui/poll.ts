/** Work that is repeated while it has more to see: at an even pace, slower after failures, and not at all on a hidden page. */

const SLOWEST = 30_000;

const SOON = 50;

/** Calls `work` now and then every `every` ms until it answers false, or until the returned function is called.
 *
 * It is called again at once where it answers "soon". `signal` ends a request that nobody waits for any more. A `work` that throws is tried again: after 2, 4, 8 … times the pause,
 * at most 30 s.
 */
export function poll(work: (signal: AbortSignal) => Promise<boolean | "soon">, every = 2000): () => void {
  const leave = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let pause = every;
  let busy = false;
  let ended = false;

  async function beat(): Promise<void> {
    if (busy || ended || document.hidden) return;
    busy = true;
    try {
      const answer = await work(leave.signal);
      ended = answer === false;
      pause = answer === "soon" ? SOON : every;
    } catch {
      pause = Math.min(2 * Math.max(pause, every), SLOWEST);
    } finally {
      busy = false;
    }
    if (!ended && !leave.signal.aborted) timer = setTimeout(beat, pause);
  }
  function shown(): void {
    clearTimeout(timer);
    if (!document.hidden) void beat();
  }
  document.addEventListener("visibilitychange", shown);
  timer = setTimeout(beat); // not at once: what `work` reads is no reason for the caller's effect to run again
  return () => {
    ended = true;
    leave.abort();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", shown);
  };
}
