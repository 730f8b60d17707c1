/** Answers that a report holds, by what the pages ask for. Of step tables it holds a few steps, and the nearest one answers. */

type Answers = Record<string, unknown>;
interface Lines {
  offset: number;
  rows: unknown[];
}
interface Row {
  row: number;
  prompt: string;
}
interface StepTable {
  step: number;
  rows: Row[];
}

/** undefined where nothing answers. */
export function held(answers: Answers, route: string): unknown {
  const { pathname, searchParams: query } = new URL(route, "http://lab");
  const [, run, rest = ""] = /^(\/api\/runs\/[^/]+)(\/.*)?$/.exec(pathname) ?? [];
  if (run && /^\/(events|evaluations)$/.test(rest)) return lines(answers[pathname] as Lines | undefined, Number(query.get("offset") ?? 0));
  if (run && rest === "/metrics") return { offset: Number(query.get("offset") ?? 0), rows: [], reset: false };
  if (run && rest === "/curves") return curves(answers[pathname], query);
  const [, kind, row] = /^\/(rollouts|tokens|pairs|ratios)(?:\/(\d+))?$/.exec(rest) ?? [];
  if (run && kind) {
    const table = nearest(answers, `${run}/${kind}?step=`, query.get("step"));
    return row === undefined || !table ? table : one(table, Number(row));
  }
  if (run && rest === "/prompt") return samePrompt(answers, `${run}/rollouts?step=`, query);
  return answers[route] ?? answers[pathname];
}

/** The whole file comes at once: whoever asks on from its end gets nothing new. */
function lines(answer: Lines | undefined, offset: number): unknown {
  return answer && offset >= answer.offset && offset > 0 ? { ...answer, rows: [] } : answer;
}

function curves(answer: unknown, query: URLSearchParams): unknown {
  const all = answer as { x: string; series: { name: string }[] } | undefined;
  if (!all || (query.get("x") ?? "step") !== all.x) return undefined;
  const names = query.getAll("names");
  return { ...all, series: all.series.filter((one) => names.includes(one.name)) };
}

function nearest(answers: Answers, prefix: string, wanted: string | null): StepTable | undefined {
  const steps = Object.keys(answers).filter((key) => key.startsWith(prefix)).map((key) => Number(key.slice(prefix.length)));
  const to = wanted === null || wanted === "" ? Infinity : Number(wanted);
  const away = (step: number): number => (to === Infinity ? -step : Math.abs(step - to));
  const found = steps.sort((a, b) => away(a) - away(b))[0];
  return found === undefined ? undefined : (answers[prefix + found] as StepTable);
}

function one(table: StepTable, row: number): unknown {
  const found = table.rows.find((each) => each.row === row);
  return found && { ...table, rows: undefined, ...found };
}

function samePrompt(answers: Answers, prefix: string, query: URLSearchParams): unknown {
  const table = nearest(answers, prefix, query.get("step"));
  const asked = table?.rows.find((each) => each.row === Number(query.get("row") ?? 0));
  if (!table || !asked) return undefined;
  const tables = Object.keys(answers).filter((key) => key.startsWith(prefix)).map((key) => answers[key] as StepTable);
  const rows = tables.sort((a, b) => a.step - b.step).flatMap(({ step, rows }) => rows.filter((each) => each.prompt === asked.prompt).map((each) => ({ step, ...each })));
  return { step: table.step, prompt: asked.prompt, rows, searched: tables.length, steps: tables.length };
}
