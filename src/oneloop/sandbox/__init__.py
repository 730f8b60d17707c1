"""Programs that nobody trusts, each run once in a process that can reach nothing and may take little."""
