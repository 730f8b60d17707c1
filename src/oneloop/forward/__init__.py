"""Fast forward passes over a Hugging Face model's own modules: packed sequences, tree attention, fused products."""
