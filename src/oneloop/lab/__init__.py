"""Pages about runs: reads run folders only."""
