"""Continuous batching for backends that want it: scheduling and bookkeeping, no device code.

`runner` drives `executor` through `scheduler`, `memory` (paged, cells or slots) and `step_commit`.
"""
