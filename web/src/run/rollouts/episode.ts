/** An episode in an environment, as the reader sees it: who said what, what was trained on, and where it was paid. */
import type { Piece, RolloutRow } from "../../types";

export interface Totals {
  /** Of the policy. */
  turns: number;
  /** Tokens that the policy chose, and those that it only read; null where the file does not say. */
  chosen: number | null;
  given: number | null;
  /** What the environment gave, over all turns. */
  reward: number;
  calls: number;
}

export function totals(episode: readonly Piece[]): Totals {
  const tokens = (own: boolean): number | null =>
    episode.reduce<number | null>((sum, piece) => (sum === null || piece.tokens === null ? null : sum + (piece.chosen === own ? piece.tokens : 0)), 0);
  return {
    turns: episode.filter((piece) => piece.chosen).length,
    chosen: tokens(true),
    given: tokens(false),
    reward: episode.reduce((sum, piece) => sum + (piece.reward ?? 0), 0),
    calls: episode.reduce((sum, piece) => sum + piece.calls.length, 0),
  };
}

/** How it ended, in words: terminated and truncated are never the same thing. */
export function ending({ stop, error, episode }: Pick<RolloutRow, "stop" | "error" | "episode">): string {
  const last = episode?.findLast((piece) => piece.chosen);
  switch (stop) {
    case "environment":
      return "terminated: the environment says that it is over";
    case "turns":
      return last?.truncated ? "truncated: the environment cut it" : "truncated: the limit of turns";
    case "length":
      return "truncated: the limit of tokens";
    case "error":
      return `the environment failed${error ? `: ${error}` : ""}; no score, and nothing is learned from it`;
    default:
      return stop ?? "not said";
  }
}
