/** The server's answers. Every route is read only; in a report they lie in the page. */
import { held } from "./report/held";
import { report } from "./report";

/** An answer that is no result: what the server said, and what to do about it. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly fix: string,
  ) {
    super(message);
  }
}

/** `get<RunList>("/api/runs")`. Throws a Refusal with words for the reader, never anything else. */
export async function get<T>(route: string, signal?: AbortSignal): Promise<T> {
  if (report) return embedded<T>(route);
  let answer: Response;
  try {
    answer = await fetch(route, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, "the lab's server does not answer", "start it again: oneloop lab");
  }
  const body: unknown = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body as T;
  const { error, fix } = (body ?? {}) as { error?: string; fix?: string };
  throw new Refusal(answer.status, error ?? `the server answered ${answer.status}`, fix ?? "");
}

function embedded<T>(route: string): T {
  const answer = report && held(report.answers, route);
  if (!answer) throw new Refusal(404, "the report does not hold this", "open the run itself: oneloop lab");
  return answer as T;
}

/** A route of one run. A list stands as its values one after another, each under the name: values may hold any sign. */
export function ofRun(id: string, rest = "", query: Record<string, string | number | readonly string[] | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of value === undefined ? [] : [value].flat()) search.append(name, String(one));
  return `/api/runs/${encodeURIComponent(id)}${rest}${search.size ? `?${search}` : ""}`;
}
