"""What runs inside of the sandbox, in an interpreter that knows nothing of oneloop: the standard library only."""
