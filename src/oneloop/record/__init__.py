"""The run folder: what is written, and how it is read back. No torch here."""
