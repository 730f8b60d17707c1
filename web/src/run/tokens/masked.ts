/** What an environment said between the tokens that the policy chose: read, and never trained on. */
import type { TokenRow } from "../../types";

/** For each token of `text`, and for its end, the masked tokens that stand before it. */
export function masked(row: Pick<TokenRow, "text" | "masked_at" | "masked_text">): string[][] {
  const before: string[][] = Array.from({ length: row.text.length + 1 }, () => []);
  row.masked_at?.forEach((at, i) => before[at]?.push(row.masked_text?.[i] ?? ""));
  return before;
}
