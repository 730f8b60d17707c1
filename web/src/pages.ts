/** Every page: the shape of its path, and what draws it. Named groups of the path become its properties. */
import type { Component } from "svelte";
import Home from "./Home.svelte";

export interface Page {
  path: RegExp;
  component: Component<Record<string, string>>;
}

function page(path: RegExp, component: Component<any>): Page {
  return { path, component };
}

export const pages: readonly Page[] = [page(/^\/$/, Home)];
