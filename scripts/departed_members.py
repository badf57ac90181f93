#!/usr/bin/env python3
"""Prints which editable distributions of an environment have no source any more.

`make install` keeps what it did not bring (PyTorch), and so it would keep a member that has left
the checkout: its entry point stays, and every start lists a plugin that does not import.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path


def source_of(distribution: importlib.metadata.Distribution) -> Path | None:
    """The folder that a distribution is edited in; None for one that is not editable."""
    origin = distribution.read_text("direct_url.json")
    if origin is None:
        return None
    known = json.loads(origin)
    if not known.get("dir_info", {}).get("editable"):
        return None
    url: str = known["url"]
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))


def departed(path: list[str]) -> list[str]:
    """Names of the distributions on `path` whose folder has no pyproject.toml, sorted."""
    sources = {
        distribution.metadata["Name"]: source_of(distribution)
        for distribution in importlib.metadata.distributions(path=path)
    }
    return sorted(
        name
        for name, source in sources.items()
        if source is not None and not (source / "pyproject.toml").is_file()
    )


if __name__ == "__main__":
    print(" ".join(departed(sys.path)))
