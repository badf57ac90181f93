"""Models that bring their own cache: one of transformers per group of equally long sequences."""
