"""Gymnasium agents: the other world that the one loop trains in."""
