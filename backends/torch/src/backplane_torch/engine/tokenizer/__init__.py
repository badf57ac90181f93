"""A model's tokenizer: its vocabulary as bytes, and encoding."""
