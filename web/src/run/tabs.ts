/** The pages of a run, in the order of the tabs. */
export const TABS = [
  { name: "overview", path: "" },
  { name: "rollouts", path: "/rollouts" },
  { name: "tokens", path: "/tokens" },
  { name: "groups", path: "/groups" },
  { name: "length", path: "/length" },
  { name: "diff", path: "/diff" },
  { name: "memory", path: "/memory" },
  { name: "report", path: "/report" },
] as const;

export type Tab = (typeof TABS)[number]["name"];
