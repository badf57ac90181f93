"""Tokens and logprobs for a whole batch of logits at once."""
