/** Where the reader is. Everything a link should keep stands in the address: a path, and names with values behind it.
 *
 * The report is one file without a server: there the whole address lies behind the #.
 */
import { report } from "./report";

const behindHash = report !== null;

function read(): URL {
  const address = behindHash ? location.hash.slice(1) || "/" : location.pathname + location.search;
  return new URL(address, "http://lab");
}

const state = $state({ path: read().pathname, search: read().search });

function update(): void {
  const url = read();
  state.path = url.pathname;
  state.search = url.search;
}
addEventListener("popstate", update);
addEventListener("hashchange", update);

export const route = {
  /** For example `/run/demo-grpo/rollouts`. */
  get path(): string {
    return state.path;
  },
  /** A value of the address, or what is given where it has none. */
  text(name: string, otherwise = ""): string {
    return new URLSearchParams(state.search).get(name) ?? otherwise;
  },
  /** A number of the address; what is given where it has none, or something that is no finite number. */
  number(name: string, otherwise: number): number {
    const text = new URLSearchParams(state.search).get(name);
    const value = text === null || text.trim() === "" ? NaN : Number(text);
    return Number.isFinite(value) ? value : otherwise;
  },
};

/** The address of a page as a link carries it. Empty values are left out. */
export function link(path: string, query: Record<string, string | number | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") search.set(name, String(value));
  const address = path + (search.size ? `?${search}` : "");
  return behindHash ? `#${address}` : address;
}

/** Go to another page; `go(link(…))`. */
export function go(address: string): void {
  if (behindHash) location.hash = address;
  else history.pushState(null, "", address);
  update();
  scrollTo(0, 0);
}

/** Change values of this page's address. A slider's way leaves no trail of entries to step back through. */
export function set(query: Record<string, string | number | undefined>): void {
  const now: Record<string, string | number | undefined> = Object.fromEntries(new URLSearchParams(state.search));
  history.replaceState(null, "", link(state.path, { ...now, ...query }));
  update();
}

/** For `<svelte:document onclick={follow}>`: links inside the lab change the page without loading it anew. */
export function follow(event: MouseEvent): void {
  const anchor = event.target instanceof Element ? event.target.closest("a") : null;
  if (!anchor || behindHash || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || anchor.target || anchor.hasAttribute("download")) return;
  if (anchor.origin !== location.origin || anchor.pathname.startsWith("/api/") || anchor.getAttribute("href")?.startsWith("#")) return;
  event.preventDefault();
  go(anchor.pathname + anchor.search);
}
