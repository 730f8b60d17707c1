/** From numbers to places on a drawing, and the round numbers that an axis shows. */

export interface Scale {
  (value: number): number;
  /** From a place back to its number. */
  invert(place: number): number;
  readonly domain: readonly [number, number];
}

/** Linear; the domain may run either way. A domain without width is widened, so that nothing divides by 0. */
export function linear(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const [from, to] = domain[0] === domain[1] ? [domain[0] - 0.5, domain[1] + 0.5] : domain;
  const slope = (range[1] - range[0]) / (to - from);
  const scale = (value: number): number => range[0] + (value - from) * slope;
  return Object.assign(scale, { invert: (place: number) => from + (place - range[0]) / slope, domain: [from, to] as const });
}

/** About `count` round numbers from `from` to `to`: 1, 2 or 5 times a power of ten apart. */
export function ticks(from: number, to: number, count = 5): number[] {
  if (!(to > from)) return [from];
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.999) ?? rough;
  const out: number[] = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Where a number at a bar's end stands: at its place, or beyond a mark that would cross it. `way`: −1 upwards, 1 downwards. */
export function clear(place: number, mark: number | undefined, way: 1 | -1): number {
  const crossed = mark !== undefined && mark > place - 13 && mark < place + 4;
  return crossed ? mark + (way < 0 ? -5 : 14) : place;
}

/** Logarithmic: equal factors lie equally far apart. Only for numbers above 0. */
export function logarithmic(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const inner = linear([Math.log(domain[0]), Math.log(domain[1])], range);
  return Object.assign((value: number) => inner(Math.log(value)), { invert: (place: number) => Math.exp(inner.invert(place)), domain });
}
