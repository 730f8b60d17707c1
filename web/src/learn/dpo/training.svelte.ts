/** The trainer of the page: what it has seen so far, and its pace. */
import { PAIRS, progress, SETTLED, Trainer, type Labels } from "../../math/dpo";
import { steady } from "../../ui/steady";
import type { Tried } from "./Belief.svelte";

export interface Training {
  readonly now: ReturnType<typeof seen> & { points: readonly { pairs: number; gap: number }[] };
  /** Where each β and kind of labels came to; the newest last. */
  readonly tried: readonly Tried[];
  /** Pairs a second. */
  speed: number;
  playing: boolean;
  /** So many pairs more, and no further than to the end. */
  work(count: number): void;
  reset(): void;
}

function seen(trainer: Trainer) {
  const counts = PAIRS.map((pair, i) => ({ pair, seen: trainer.seen[i]!, upsets: trainer.upsets[i]! }));
  return { ...trainer.state, pairs: trainer.pairs, last: trainer.last, progress: progress(trainer), done: trainer.pairs >= SETTLED, counts };
}

/** Call it while a component is set up. Another β, other labels or another seed start again from the reference. */
export function training(beta: () => number, labels: () => Labels, seed: () => number): Training {
  let speed = $state(20_000);
  let playing = $state(false);
  let tried = $state.raw<Tried[]>([]);
  // The trainer and its path change in place; `beat` says when to look at them again, `turn` when to start anew.
  let turn = $state(0);
  let beat = $state(0);
  const { trainer, path } = $derived.by(() => {
    void turn;
    return { trainer: new Trainer(beta(), labels(), seed()), path: [] as { pairs: number; gap: number }[] };
  });
  const now = $derived.by(() => {
    void beat;
    return { ...seen(trainer), points: [...path] };
  });

  function work(count: number): void {
    const until = Math.min(trainer.pairs + count, SETTLED);
    while (trainer.pairs < until) {
      trainer.step();
      if (trainer.pairs >= (path.at(-1)?.pairs ?? 0) * 1.03) path.push({ pairs: trainer.pairs, gap: trainer.state.gap });
    }
    beat += 1;
    const [{ gap, kl }, at] = [trainer.state, { beta: trainer.beta, labels: trainer.labels }];
    tried = [...tried.filter((point) => point.beta !== at.beta || point.labels !== at.labels), { ...at, gap, kl }];
    if (trainer.pairs >= SETTLED) playing = false;
  }
  $effect(() => {
    if (playing) return steady(() => speed, work);
  });
  return {
    get now() {
      return now;
    },
    get tried() {
      return tried;
    },
    get speed() {
      return speed;
    },
    set speed(value) {
      speed = value;
    },
    get playing() {
      return playing;
    },
    set playing(value) {
      playing = value;
    },
    work,
    reset() {
      playing = false;
      turn += 1;
    },
  };
}
