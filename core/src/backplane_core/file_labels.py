"""What the names of weight files say beyond their format: `x-Q4_K_M.gguf` is labelled Q4_K_M."""

import re


def has_label(name: str, label: str) -> bool:
    """Whether a quantization's name stands by itself, in any case, in a file's or folder's name."""
    pattern = rf"(?i)(^|[^a-z0-9]){re.escape(label)}($|[^a-z0-9_])"
    return re.search(pattern, name) is not None
