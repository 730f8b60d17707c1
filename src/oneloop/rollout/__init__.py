"""The built-in engine: samples from the trainer's own modules and weights."""
