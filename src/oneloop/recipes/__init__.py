"""Ready runs: a `Run` value becomes algorithm, experience, models and recorder here, and nowhere else."""
