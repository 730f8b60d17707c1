/** What the log-probs of chosen and rejected answers did over a run, in words. */
import { fixed } from "../../ui/numbers";

function change(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const part = Math.max(1, Math.floor(known.length / 10));
  const mean = (some: readonly number[]) => some.reduce((sum, value) => sum + value, 0) / some.length;
  return mean(known.slice(-part)) - mean(known.slice(0, part));
}

function moved(by: number): string {
  return `${by < 0 ? "fell" : "rose"} by ${fixed(Math.abs(by))} nats`;
}

/** Means of the first and of the last tenth of the run are compared: single batches differ by chance. */
export function likelihoods(chosen: readonly (number | null)[], rejected: readonly (number | null)[]): string {
  const [up, down] = [change(chosen), change(rejected)];
  if (up === null || down === null) return "Not enough steps yet to say where the log-probs go.";
  const facts = `The log-prob of chosen answers ${moved(up)}, that of rejected ones ${moved(down)}.`;
  if (up < 0 && down < up) return `Both fell. ${facts} This is common: the loss sees only the difference of the two, and that grew by ${fixed(up - down)} nats. The probability went to answers that stand in no pair.`;
  if (up <= down) return `${facts} The difference did not grow: so far the policy does not prefer what the labels prefer.`;
  if (down > 0) return `Both rose. ${facts} The difference, which is all that the loss sees, grew by ${fixed(up - down)} nats.`;
  return `${facts} They moved apart by ${fixed(up - down)} nats, each in the direction one hopes for.`;
}
