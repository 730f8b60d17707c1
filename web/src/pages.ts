/** Every page: the shape of its path, and what draws it. Named groups of the path become its properties. */
import type { Component } from "svelte";
import Compare from "./compare/Compare.svelte";
import Explain from "./explain/Explain.svelte";
import Home from "./home/Home.svelte";
import Clip from "./learn/clip/Clip.svelte";
import Dpo from "./learn/dpo/Dpo.svelte";
import Groups from "./learn/groups/Groups.svelte";
import Loop from "./learn/loop/Loop.svelte";
import { report } from "./report";
import ReportFile from "./report/ReportFile.svelte";
import Diff from "./run/diff/Diff.svelte";
import RunGroups from "./run/groups/Groups.svelte";
import Length from "./run/length/Length.svelte";
import Memory from "./run/memory/Memory.svelte";
import Overview from "./run/overview/Overview.svelte";
import ReportOfRun from "./run/report/ReportOfRun.svelte";
import Rollouts from "./run/rollouts/Rollouts.svelte";
import Tokens from "./run/tokens/Tokens.svelte";
import Studies from "./studies/Studies.svelte";
import Study from "./studies/Study.svelte";

export interface Page {
  path: RegExp;
  component: Component<Record<string, string>>;
}

function page(path: RegExp, component: Component<any>): Page {
  return { path, component };
}

export const pages: readonly Page[] = [
  page(/^\/$/, report ? ReportFile : Home),
  page(/^\/compare$/, Compare),
  page(/^\/explain\/(?<code>\w+)$/, Explain),
  page(/^\/learn\/clip$/, Clip),
  page(/^\/learn\/dpo$/, Dpo),
  page(/^\/learn\/groups$/, Groups),
  page(/^\/learn\/loop$/, Loop),
  page(/^\/run\/(?<id>[^/]+)\/memory$/, Memory),
  page(/^\/run\/(?<id>[^/]+)\/report$/, ReportOfRun),
  page(/^\/run\/(?<id>[^/]+)$/, Overview),
  page(/^\/run\/(?<id>[^/]+)\/diff$/, Diff),
  page(/^\/run\/(?<id>[^/]+)\/groups$/, RunGroups),
  page(/^\/run\/(?<id>[^/]+)\/length$/, Length),
  page(/^\/run\/(?<id>[^/]+)\/rollouts$/, Rollouts),
  page(/^\/run\/(?<id>[^/]+)\/tokens$/, Tokens),
  page(/^\/studies$/, Studies),
  page(/^\/studies\/(?<name>\w+)$/, Study),
];
