"""Continuous batching for backends that want it: scheduling and bookkeeping, no device code."""
