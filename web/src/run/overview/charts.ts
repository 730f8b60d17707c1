/** Which eight of a run's metrics are drawn first. The rest is in the drawer of all metrics. */

export interface ChartSpec {
  title: string;
  /** Definition and unit. */
  help: string;
  names: readonly string[];
}

function chart(title: string, help: string, ...names: string[]): ChartSpec {
  return { title, help, names };
}

/** In order of what tells most; a run that lacks one shows the next. */
const WANTED: readonly ChartSpec[] = [
  chart("reward", "mean reward of a step's completions, or return of the episodes that ended in it; band: plus and minus the standard deviation", "reward"),
  chart("accuracy", "share of pairs whose chosen answer has the larger implicit reward", "rewards/accuracies"),
  chart("margin", "implicit reward of the chosen answer minus that of the rejected one, mean over pairs", "rewards/margins"),
  chart("log-probs", "log-probability of whole answers, mean over pairs, in nats", "logps/chosen", "logps/rejected"),
  chart("KL", "distance to the reference policy, in nats per token", "kl"),
  chart("entropy", "spread of the policy's next token, mean in nats per token", "entropy"),
  chart("length", "tokens of a completion, mean", "completions/mean_length"),
  chart("truncated", "share of completions that were cut at the length limit", "completions/clipped_ratio"),
  chart("dead groups", "share of groups whose rewards are all equal: no advantage, no gradient", "frac_reward_zero_std"),
  chart("gradient zero", "share of tokens whose gradient the clip made 0", "clip/gradient_zero", "clip_ratio/region_mean"),
  chart("loss", "what is minimised; for RL its value says little, its gradient is what counts", "loss"),
  chart("held-out loss", "loss on examples that are not trained on", "eval/loss"),
  chart("gradient norm", "2-norm of the gradient before it is cut", "grad_norm"),
  chart("value loss", "squared error of the critic", "value_loss"),
  chart("step size", "how far a step moves the policy, in nats per token; of a trust region, the exact KL", "approx_kl", "trust/kl"),
  chart("learning rate", "of the policy's optimizer", "learning_rate"),
  chart("speed", "tokens per second, of the whole step", "tokens_per_second"),
  chart("update time", "seconds of a step spent on updates", "time/update"),
];
const SHOWN = 8;

export function chartsOf(metrics: readonly string[]): ChartSpec[] {
  const has = new Set(metrics);
  return WANTED.map((spec) => ({ ...spec, names: spec.names.filter((name) => has.has(name)) }))
    .filter((spec) => spec.names.length > 0)
    .slice(0, SHOWN);
}

/** Names that match what was typed: a regular expression, or plain text where it is none. */
export function matching(names: readonly string[], filter: string): string[] {
  let test: (name: string) => boolean;
  try {
    const pattern = new RegExp(filter, "i");
    test = (name) => pattern.test(name);
  } catch {
    test = (name) => name.toLowerCase().includes(filter.toLowerCase());
  }
  return names.filter(test);
}
