/** Which page of a run shows best what an alert is about. */
const PAGES: readonly { codes: RegExp; path: string; words: string }[] = [
  { codes: /^A_(DEAD|REFILL|FLAT)$/, path: "/groups", words: "Its groups, and how many are dead" },
  { codes: /^A_(TRUNCATED|NO_END|LENGTH_UP|LENGTH_DOWN)$/, path: "/length", words: "The lengths of its completions" },
  { codes: /^A_(ENTROPY_LOW|ENTROPY_HIGH|KL|RATIO|MISMATCH)$/, path: "/tokens", words: "Its tokens, coloured by what went wrong" },
  { codes: /^A_MEMORY$/, path: "/memory", words: "Its memory" },
];
const OTHERS = { path: "/rollouts", words: "Its completions" };

export function lookAt(code: string): { path: string; words: string } {
  return PAGES.find(({ codes }) => codes.test(code)) ?? OTHERS;
}
