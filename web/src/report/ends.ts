/** The telling ones of many completions. */

/** So many rows that have a reward, the highest first: half of them from the top, half from the bottom. */
export function ends<T extends { reward: number | null }>(rows: readonly T[], most: number): T[] {
  const scored = rows.filter((row) => row.reward !== null).sort((a, b) => b.reward! - a.reward!);
  return scored.length <= most ? scored : [...scored.slice(0, most / 2), ...scored.slice(-most / 2)];
}
