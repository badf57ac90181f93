"""Backplane backend: Hugging Face models through PyTorch."""
