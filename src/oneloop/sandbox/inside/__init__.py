"""What runs in the starter and in the confined processes: the standard library and itself, nothing else of oneloop."""
