/** Which lines share a picture: none may be squashed by the others. */

export interface Curve {
  name: string;
  place: number;
  /** Steps counted from 1; what was measured before the first stands at 0. */
  x: number[];
  y: number[];
}

/** How much smaller than the picture a line may be. */
const HEIGHT = 4;
const WIDTH = 3;

export function byScale(lines: readonly Curve[]): Curve[][] {
  const pictures: Curve[][] = [];
  for (const line of lines) {
    const fitting = pictures.find((picture) => shareScale([...picture, line]));
    if (fitting) fitting.push(line);
    else pictures.push([line]);
  }
  return pictures;
}

function shareScale(lines: readonly Curve[]): boolean {
  const ranges = lines.map((line) => [Math.min(...line.y), Math.max(...line.y)] as const);
  const whole = Math.max(...ranges.map((range) => range[1])) - Math.min(...ranges.map((range) => range[0]));
  const wide = Math.max(...lines.map((line) => line.x.at(-1)!));
  return lines.every((line, i) => {
    const height = ranges[i]![1] - ranges[i]![0];
    return (height === 0 || height >= whole / HEIGHT) && line.x.at(-1)! >= wide / WIDTH;
  });
}

/** A run's line of a metric, or null where it has no finite value. What was measured before the first step is put in front. */
export function curve(
  name: string,
  place: number,
  metric: string,
  series: { x: readonly number[]; y: readonly (number | null)[] } | undefined,
  evaluations: readonly Record<string, unknown>[],
): Curve | null {
  const before = evaluations.filter((row) => row.done === 0 && typeof row[metric] === "number").map((row) => row[metric] as number);
  const points = [...before.map((value) => [0, value] as const), ...(series?.x ?? []).map((step, i) => [step + 1, series!.y[i]] as const)];
  const finite = points.filter((point): point is readonly [number, number] => typeof point[1] === "number");
  return finite.length ? { name, place, x: finite.map((point) => point[0]), y: finite.map((point) => point[1]) } : null;
}
