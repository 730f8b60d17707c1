"""The memory bill of a run, before it starts."""
