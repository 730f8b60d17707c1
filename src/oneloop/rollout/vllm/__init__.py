"""vLLM as the rollout engine: a server in a process and an environment of its own, spoken to over HTTP."""
