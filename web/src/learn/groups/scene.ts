/** One shape for a toy's batch and for a step of a run. */
import type { RolloutRow, Rollouts, TokenTable } from "../../types";

export interface Answer {
  name: string;
  reward: number;
  /** What the run recorded; null for a toy. */
  recorded: number | null;
  /** The text in pieces: tokens, or words where tokens were not recorded. */
  pieces: readonly string[];
}

export interface Group {
  name: string;
  prompt: string;
  answers: readonly Answer[];
  /** Answers that could not be scored; they leave the group's mean. */
  unscored: number;
  dropped: boolean;
  pieces: "tokens" | "words";
}

/** A step's groups, with the recorded tokens of those that have them. */
export function groupsOf(rollouts: Rollouts, tokens: TokenTable | null): Group[] {
  const rows = new Map<number, RolloutRow[]>();
  for (const row of rollouts.rows) rows.set(row.group, [...(rows.get(row.group) ?? []), row]);
  return [...rows].map(([number, answers]) => {
    const recorded = new Map((tokens?.rows ?? []).filter((row) => row.group === number).map((row) => [row.sample, row.text]));
    const whole = answers.every((row) => recorded.has(row.sample));
    const scored = answers.filter((row) => row.reward !== null);
    return {
      name: `group ${number + 1}`,
      prompt: answers[0]!.prompt,
      answers: scored.map((row) => ({
        name: `o${row.sample + 1}`,
        reward: row.reward!,
        recorded: row.advantage,
        pieces: whole ? recorded.get(row.sample)! : words(row.completion),
      })),
      unscored: answers.length - scored.length,
      dropped: answers.every((row) => !row.kept),
      pieces: whole ? "tokens" : "words",
    };
  });
}

/** A text in words with the space before each. */
export function words(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}
