import { describe, expect, test } from "vitest";
import golden from "../../../tests/lab/golden/dpo.json";
import { dpoGradient, dpoLoss, implicitReward, marginOf, pairWeight, progress, QUALITY, target, Trainer } from "./dpo";

const near = (got: number, wanted: number): void => expect(Math.abs(got - wanted)).toBeLessThan(1e-6);

test.each(golden)("as oneloop: $inputs", ({ inputs, expected }) => {
  if (inputs.quality) {
    expect(inputs.quality).toEqual([...QUALITY]);
    near(target(inputs.beta).kl, expected.kl!);
    return;
  }
  const { beta } = inputs;
  const margin = implicitReward(inputs.logp_chosen!, inputs.ref_chosen!, beta) - implicitReward(inputs.logp_rejected!, inputs.ref_rejected!, beta);
  near(margin, expected.margin!);
  near(dpoLoss(margin), expected.loss!);
  near(pairWeight(margin), expected.weight!);
});

test("the gradient is the slope of the loss", () => {
  const logits = [0.3, -0.8, 1.1, 0.2];
  const h = 1e-6;
  for (const beta of [0.1, 1, 2]) {
    dpoGradient(logits, 3, 1, beta).forEach((slope, i) => {
      const moved = (by: number) => dpoLoss(marginOf(logits.map((z, j) => (j === i ? z + by : z)), 3, 1, beta));
      near(slope, (moved(h) - moved(-h)) / (2 * h));
    });
  }
});

test("the target: gap 2.8 at every β, and the KL of the closed form", () => {
  for (const [beta, kl] of [[0.1, 1.3833], [0.5, 0.8183], [1, 0.3765], [2, 0.1218]] as const) {
    expect(target(beta).gap).toBeCloseTo(2.8, 9);
    expect(target(beta).kl).toBeCloseTo(kl, 4);
  }
  expect(target(1).probabilities[3]).toBeCloseTo(0.5969, 4);
});

describe("drawn labels", () => {
  test.each([0.1, 0.5, 1, 2])("β = %f ends at gap 2.8 and at the KL of its β", (beta) => {
    for (const seed of [1, 2]) {
      const trainer = new Trainer(beta, "drawn", seed);
      expect(progress(trainer)).toBe("start");
      while (trainer.pairs < 60_000) trainer.step();
      expect(Math.abs(trainer.state.gap - 2.8)).toBeLessThanOrEqual(0.3);
      expect(Math.abs(trainer.state.kl / target(beta).kl - 1)).toBeLessThanOrEqual(0.05);
      expect(progress(trainer)).toBe("there");
    }
  });

  test("one seed gives one path of the implicit rewards, whatever β is", () => {
    const [small, large] = [new Trainer(0.1, "drawn", 7), new Trainer(2, "drawn", 7)];
    for (let i = 0; i < 500; i++) [small, large].forEach((trainer) => trainer.step());
    near(small.state.gap, large.state.gap);
    expect(small.state.kl).toBeGreaterThan(large.state.kl);
  });

  test("the worse answer wins as often as Bradley–Terry says", () => {
    const trainer = new Trainer(1, "drawn", 3);
    while (trainer.pairs < 30_000) trainer.step();
    expect(trainer.upsets[0]! / trainer.seen[0]!).toBeCloseTo(1 / (1 + Math.E), 1);
  });
});

test("labels that never disagree: the gap grows past every bound that drawn labels keep", () => {
  const trainer = new Trainer(1, "deterministic", 1);
  const gaps = [1000, 10_000].map((pairs) => {
    while (trainer.pairs < pairs) trainer.step();
    return trainer.state.gap;
  });
  expect(gaps[0]).toBeGreaterThan(8);
  expect(gaps[1]! - gaps[0]!).toBeGreaterThan(4); // a tenfold adds about 3·ln 10 = 6.9: no end in sight
  expect(trainer.upsets).toEqual([0, 0, 0, 0, 0, 0]);
  expect(progress(trainer)).toBe("endless");
});
