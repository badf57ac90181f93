"""Whether the bindings are installed, and in a version this backend was written for.

Import-light: nothing here loads llama.cpp.
"""

import importlib.metadata
import re

from backplane_core.backend import Unavailable

DISTRIBUTION = "llama-cpp-python"
OLDEST = (0, 3, 36)
BEFORE = (0, 4)

_INSTALL = f"install it: pip install '{DISTRIBUTION}>=0.3.36,<0.4'"


def bindings_version() -> str | None:
    """The installed version of llama-cpp-python; None where it is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


def objection(version: str | None) -> Unavailable | None:
    """Why these bindings cannot be used, if so."""
    if version is None:
        return Unavailable(reason=f"{DISTRIBUTION} is not installed", remedy=_INSTALL)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if not numbers >= OLDEST or numbers >= BEFORE:
        return Unavailable(
            reason=f"{DISTRIBUTION} {version} is installed, but 0.3.36 or a later 0.3 is needed",
            remedy=_INSTALL,
        )
    return None
