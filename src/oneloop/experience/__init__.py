"""Where batches come from: rollouts, preference pairs or demonstrations. One `Batch` serves all."""
