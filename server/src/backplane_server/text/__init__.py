"""From token ids to text: incremental detokenizing and stop strings. Knows nothing of HTTP."""
