"""The recipe of the demo model: text, tokenizer, training, export, evaluation."""
