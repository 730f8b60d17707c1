/** Advantages from the rewards of groups: several answers to one prompt, compared with one another. */

export type Scale = "none" | "group" | "batch";
export type Ddof = 0 | 1;

/** Added to the std, as oneloop does. */
export const EPS = 1e-6;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Divides by n (ddof 0) or n − 1 (ddof 1); 0 where that is no number of things. */
export function std(values: readonly number[], ddof: Ddof): number {
  if (values.length <= ddof || !differ(values)) return 0;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - ddof));
}

/** Whether dynamic sampling would keep the group: equal rewards have no group advantage. */
export function differ(rewards: readonly number[]): boolean {
  return rewards.length > 1 && Math.max(...rewards) > Math.min(...rewards);
}

/** R − mean, over the std of its group, of the batch, or over nothing. Equal rewards give exactly 0. */
export function groupAdvantages(batch: readonly (readonly number[])[], scale: Scale, ddof: Ddof): number[][] {
  const over = std(batch.flat(), ddof);
  return batch.map((rewards) => {
    if (!differ(rewards)) return rewards.map(() => 0);
    const middle = mean(rewards);
    const divisor = scale === "none" ? 1 : (scale === "group" ? std(rewards, ddof) : over) + EPS;
    return rewards.map((reward) => (reward - middle) / divisor);
  });
}

/** RLOO: R_i minus the mean of the others. */
export function leaveOneOut(rewards: readonly number[]): number[] {
  if (!differ(rewards)) return rewards.map(() => 0);
  const sum = rewards.reduce((total, reward) => total + reward, 0);
  return rewards.map((reward) => reward - (sum - reward) / (rewards.length - 1));
}

/** Chance that all of a group's answers are right, or all wrong, where each is right with probability p. */
export function deadChance(p: number, size: number): number {
  return p ** size + (1 - p) ** size;
}

/** The first place where the answers are not all the same; null where they never part. */
export function firstDifference(answers: readonly (readonly string[])[]): number | null {
  const longest = Math.max(0, ...answers.map((answer) => answer.length));
  for (let at = 0; at < longest; at++) if (new Set(answers.map((answer) => answer[at])).size > 1) return at;
  return null;
}
