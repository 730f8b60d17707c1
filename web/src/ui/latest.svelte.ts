/** An answer that follows the address: while the next one is on its way, the last one stays, so that a slider does not flicker. */
import { get, Refusal } from "../api";

export interface Latest<T> {
  readonly value: T | null;
  /** Why there is no answer. */
  readonly refusal: Refusal | null;
}

/** Call it while a component is set up. `address` gives null where nothing is wanted. */
export function latest<T>(address: () => string | null): Latest<T> {
  let value = $state.raw<T | null>(null);
  let refusal = $state.raw<Refusal | null>(null);
  $effect(() => {
    const wanted = address();
    if (wanted === null) {
      value = refusal = null;
      return;
    }
    const leave = new AbortController();
    get<T>(wanted, leave.signal).then(
      (answer) => {
        if (!leave.signal.aborted) [value, refusal] = [answer, null];
      },
      (error: unknown) => {
        if (!leave.signal.aborted) [value, refusal] = [null, error instanceof Refusal ? error : new Refusal(0, String(error), "")];
      },
    );
    return () => leave.abort();
  });
  return {
    get value() {
      return value;
    },
    get refusal() {
      return refusal;
    },
  };
}
