"""Adapters from Hugging Face models to the loop's `Models` port."""
