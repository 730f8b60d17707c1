"""What a run keeps of the inside of its updates: ratios, tokens and pairs, for pages that show the mathematics."""
