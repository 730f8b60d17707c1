"""Sampling beside the trainer: in a second process of the built-in engine, or in a thread that asks a server."""
