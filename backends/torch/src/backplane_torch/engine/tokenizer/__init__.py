"""A model's tokenizer as servers need it: a file to encode with, a table of bytes to decode by."""
