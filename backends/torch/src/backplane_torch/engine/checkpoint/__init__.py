"""Checkpoints on disk: checked, then streamed into a model."""
