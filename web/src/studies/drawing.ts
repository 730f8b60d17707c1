/** Where a panel's numbers lie: scales that may be logarithmic, also around 0, and the ticks that fit them. */
import { linear, logarithmic, ticks, type Scale } from "../ui/scale";

export type Kind = "linear" | "log" | "symlog";
type Pair = readonly [number, number];

/** Linear near 0 and logarithmic far from it, either side. */
function symlog(domain: Pair, range: Pair): Scale {
  const bent = (value: number): number => Math.sign(value) * Math.log1p(Math.abs(value));
  const inner = linear([bent(domain[0]), bent(domain[1])], range);
  const back = (value: number): number => Math.sign(value) * Math.expm1(Math.abs(value));
  return Object.assign((value: number) => inner(bent(value)), { invert: (place: number) => back(inner.invert(place)), domain });
}

export function scaled(kind: Kind, domain: Pair, range: Pair): Scale {
  return { linear, log: logarithmic, symlog }[kind](domain, range);
}

/** From least to most with a little room. What a logarithm cannot show is left out of it. */
export function extent(kind: Kind, values: readonly number[]): Pair {
  const shown = kind === "log" ? values.filter((value) => value > 0) : values;
  if (!shown.length) return [kind === "log" ? 0.1 : 0, 1];
  const [least, most] = [Math.min(...shown), Math.max(...shown)];
  if (kind === "log") {
    const room = least === most ? 2 : (most / least) ** 0.05;
    return [least / room, most * room];
  }
  const room = most > least ? 0.05 * (most - least) : Math.abs(most) || 1;
  return [least - room, most + room];
}

/** Round numbers within a domain: for logarithms powers of ten, with 2 and 5 between them where there are few. */
export function marks(kind: Kind, domain: Pair): number[] {
  if (kind === "linear") return ticks(domain[0], domain[1]);
  if (kind === "symlog") {
    const sizes = [1, 10, 100, 1000, 10_000];
    return [...sizes.map((size) => -size).reverse(), 0, ...sizes].filter((value) => value >= domain[0] && value <= domain[1]);
  }
  const powers = Array.from({ length: 61 }, (_, i) => i - 30);
  const within = (times: readonly number[]): number[] =>
    powers.flatMap((power) => times.map((factor) => Number(`${factor}e${power}`))).filter((value) => value >= domain[0] && value <= domain[1]);
  const tens = within([1]);
  return tens.length > 2 ? tens : within([1, 2, 5]);
}

/** The measured places that have room for a number of their own; the first is always among them. */
export function labelled(places: readonly number[], scale: Scale, apart: number): number[] {
  const out: number[] = [];
  for (const place of places) if (!out.length || scale(place) - scale(out.at(-1)!) >= apart) out.push(place);
  return out;
}

/** The outline of a band: along its upper edge and back along the lower one. Ends outside the drawing lie on its edge. */
export function band(points: readonly { x: number; low: number; high: number }[], x: Scale, y: Scale): string {
  const [bottom, top] = y.domain;
  const at = (place: number, value: number): string => `${x(place).toFixed(1)},${y(Math.min(Math.max(value, bottom), top)).toFixed(1)}`;
  return [...points.map((one) => at(one.x, one.high)), ...points.toReversed().map((one) => at(one.x, one.low))].join(" ");
}

/** A name in lines of at most so many signs, where its words allow it; a comma always ends one. */
export function wrapped(name: string, most: number): string[] {
  const lines: string[] = [];
  for (const part of name.split(", ")) {
    let line = "";
    for (const word of part.split(" ")) {
      if (line && line.length + 1 + word.length > most) {
        lines.push(line);
        line = word;
      } else line = line ? `${line} ${word}` : word;
    }
    lines.push(line);
  }
  return lines;
}
