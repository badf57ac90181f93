"""Models whose attention goes through the attention interface, over a paged cache."""
