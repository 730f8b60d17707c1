"""Processes that train together, and the state they resume from."""
