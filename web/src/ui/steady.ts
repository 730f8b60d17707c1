/** Work at a steady rate, shown as often as the reader wants motion. */

/** Longest time that one showing makes up for: a hidden or slow page does not owe the rest. */
const LONGEST = 0.25;

/** Calls `work(count)` so that counts add up to `rate()` a second, until the returned function is called.
 *
 * Where the reader asked for reduced motion, it is called twice a second only, with the same rate.
 */
export function steady(rate: () => number, work: (count: number) => void): () => void {
  const quiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let [last, owed] = [performance.now(), 0];
  const beat = (): void => {
    const now = performance.now();
    owed += rate() * (quiet ? 0.5 : Math.min((now - last) / 1000, LONGEST));
    last = now;
    const count = Math.floor(owed);
    owed -= count;
    if (count) work(count);
  };
  if (quiet) {
    const timer = setInterval(beat, 500);
    return () => clearInterval(timer);
  }
  let frame = requestAnimationFrame(function next() {
    frame = requestAnimationFrame(next);
    beat();
  });
  return () => cancelAnimationFrame(frame);
}
