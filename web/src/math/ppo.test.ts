import { describe, expect, test } from "vitest";
import { best, referenceLogits, score, standing, STATES, stateOf } from "./chain";
import { logSoftmax } from "./kl";
import { ANSWERS, Machine, policyGradient, SETTINGS, STAGES, valueGradient } from "./ppo";

const slope = (of: (x: number) => number, x: number): number => (of(x + 1e-6) - of(x - 1e-6)) / 2e-6;

describe("gradients by hand are those of the losses", () => {
  const logits = [0.4, -0.3, 1, 0.1];
  const logp = logSoftmax(logits)[2]!;
  test.each([
    ["inside the band", logp - 0.1, 0.7, false],
    ["above it, better than expected", logp - 0.5, 0.7, true],
    ["above it, worse than expected", logp - 0.5, -0.7, false],
    ["below it, worse than expected", logp + 0.5, -0.7, true],
    ["below it, better than expected", logp + 0.5, 0.7, false],
  ])("policy, %s", (_, logpOld, advantage, clipped) => {
    const part = policyGradient(logits, 2, logpOld, advantage, 0.2);
    expect(part.clipped).toBe(clipped);
    part.gradient.forEach((got, v) => {
      const loss = (z: number) => policyGradient(logits.map((logit, i) => (i === v ? z : logit)), 2, logpOld, advantage, 0.2).loss;
      expect(got).toBeCloseTo(slope(loss, logits[v]!), 6);
    });
  });

  test("critic", () => {
    expect(valueGradient(0.3, 1).gradient).toBeCloseTo(slope((value) => valueGradient(value, 1).loss, 0.3), 6);
  });
});

test("states are numbered without gaps, and only the beginning is scored", () => {
  const words = [0, 1, 2, 3];
  const all = [[], ...words.map((a) => [a]), ...words.flatMap((a) => words.map((b) => [a, b]))];
  expect(all.map(stateOf)).toEqual(Array.from({ length: STATES }, (_, i) => i));
  expect([[0, 1, 2], [0, 1, 3], [0, 2, 2], [1, 1, 2]].map(score)).toEqual([1, 0.5, 0.2, 0]);
});

test("no policy is better than the best: the closed form is what its own policy has", () => {
  const reference = referenceLogits();
  const [beta, h] = [0.3, 1e-4];
  // d/dβ of β log Σ π_ref exp(R/β) is −KL of the best policy (envelope theorem)
  const kl = -(best(reference, beta + h) - best(reference, beta - h)) / (2 * h);
  expect(kl).toBeGreaterThan(0);
  expect(best(reference, beta)).toBeGreaterThan(standing(reference, reference).score);
  expect(best(reference, 1e3)).toBeCloseTo(standing(reference, reference).score, 3);
});

describe("the loop", () => {
  const batch = (settings: typeof SETTINGS, seed = 1): Machine => {
    const machine = new Machine(seed);
    machine.turn(settings);
    return machine;
  };

  test("goes through its stages in order, with K updates in between", () => {
    const machine = new Machine(1);
    const seen: string[] = [];
    for (let i = 0; i < 5 + SETTINGS.epochs; i++) {
      machine.advance(SETTINGS);
      seen.push(machine.done!);
    }
    expect(seen).toEqual([...STAGES.slice(0, 4), ...Array(SETTINGS.epochs).fill("update"), "sync"]);
    expect([machine.loops, machine.next]).toEqual([1, "sample"]);
  });

  test("K = 1: ρ is exactly 1 at every token of the only update, and nothing is clipped", () => {
    for (const minibatches of [1, 4]) {
      const { updates } = batch({ ...SETTINGS, epochs: 1, minibatches });
      expect(updates.length).toBe(minibatches);
      expect(updates[0]!.ratios.every((ratio) => ratio === 1)).toBe(true);
      expect(updates[0]!.clipped).toBe(0);
    }
  });

  test("later updates have other ratios, and a narrow clip takes gradients", () => {
    const { updates } = batch({ ...SETTINGS, epsilon: 0.01 });
    expect(updates[1]!.ratios.some((ratio) => Math.abs(ratio - 1) > 0.01)).toBe(true);
    expect(updates.at(-1)!.clipped).toBeGreaterThan(0.2);
  });

  test("every epoch goes through every answer once", () => {
    const { updates } = batch({ ...SETTINGS, epochs: 2, minibatches: 4 });
    for (const epoch of [updates.slice(0, 4), updates.slice(4)]) {
      expect(epoch.flatMap((update) => update.answers).sort((a, b) => a - b)).toEqual(Array.from({ length: ANSWERS }, (_, i) => i));
    }
  });

  test("at the start there is no penalty; later the reward is −β·gap, with the score at the last word", () => {
    const machine = batch(SETTINGS);
    expect(machine.actions.every((action) => action.logpOld === action.logpRef)).toBe(true);
    machine.turn(SETTINGS);
    for (const { actions, score } of machine.answers) {
      actions.forEach((a, t) => expect(a.reward).toBeCloseTo(-0.1 * (a.logpOld - a.logpRef) + (t === 2 ? score : 0), 12));
    }
  });

  test.each([0, 0.1, 0.3])("really learns: with β = %f it goes nine tenths of the way to the best there is", (beta) => {
    const settings = { ...SETTINGS, beta };
    for (const seed of [1, 2]) {
      const machine = new Machine(seed);
      const objective = () => machine.standing().score - beta * machine.standing().kl;
      const [start, end] = [objective(), best(machine.reference, beta)];
      while (machine.loops < 60) machine.turn(settings);
      expect(objective() - start).toBeGreaterThan(0.9 * (end - start));
      expect(objective()).toBeLessThanOrEqual(end + 1e-9);
    }
  });

  test("the critic learns what a beginning is worth", () => {
    const machine = new Machine(1);
    while (machine.loops < 60) machine.turn({ ...SETTINGS, beta: 0 });
    const [none, the, cat] = [[], [0], [0, 1]].map((words) => machine.critic[stateOf(words)]!);
    expect(Math.min(none!, the!, cat!)).toBeGreaterThan(0.85);
  });

  test("what the page says to try: a larger β brings a trained policy back, λ = 0 starts slower", () => {
    const after = (loops: number, settings: typeof SETTINGS, machine = new Machine(1)): Machine => {
      for (let i = 0; i < loops; i++) machine.turn(settings);
      return machine;
    };
    const machine = after(40, SETTINGS);
    const kl = machine.standing().kl;
    expect(after(100, { ...SETTINGS, beta: 0.5 }, machine).standing().kl).toBeLessThan(kl / 2);
    expect(after(10, { ...SETTINGS, lam: 0 }).standing().score).toBeLessThan(after(10, SETTINGS).standing().score - 0.1);
  });

  test("a seed gives one run; a learning rate of 0 learns nothing", () => {
    expect(batch(SETTINGS, 5).policy).toEqual(batch(SETTINGS, 5).policy);
    expect(batch(SETTINGS, 5).policy).not.toEqual(batch(SETTINGS, 6).policy);
    expect(batch({ ...SETTINGS, rate: 0 }).policy).toEqual(referenceLogits());
  });
});
