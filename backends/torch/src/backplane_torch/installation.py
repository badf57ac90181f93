"""Whether PyTorch and transformers are installed, in versions this backend was written for.

Import-light: asks the packages' metadata and imports neither, which takes seconds.
"""

import importlib.metadata
import re
from dataclasses import dataclass

from backplane_core.backend import Unavailable


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


@dataclass(frozen=True, kw_only=True)
class Library:
    """A distribution that the engine is built on, and which of its versions will do.

    Attributes:
        oldest: the first version that has what the engine uses.
        before: the first one that nobody has tried; None where any later one is taken.
    """

    name: str
    oldest: tuple[int, ...]
    before: tuple[int, ...] | None = None

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        ceiling = f",<{_dotted(self.before)}" if self.before else ""
        return f"{self.name}>={_dotted(self.oldest)}{ceiling}"


TORCH = Library(name="torch", oldest=(2, 11))
TRANSFORMERS = Library(name="transformers", oldest=(5, 17), before=(6,))
LIBRARIES = (TORCH, TRANSFORMERS)

REMEDY = "in a checkout: make install-torch; elsewhere: pip install " + " ".join(
    f"'{library.requirement}'" for library in LIBRARIES
)


def installed_version(library: Library) -> str | None:
    """The installed version ("2.13.0+cpu"); None where it is not installed."""
    try:
        return importlib.metadata.version(library.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str | None]:
    """That of each library, by name."""
    return {library.name: installed_version(library) for library in LIBRARIES}


def objection(versions: dict[str, str | None]) -> Unavailable | None:
    """Why the engine cannot run with these versions, if so."""
    absent = [library.name for library in LIBRARIES if versions[library.name] is None]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        return Unavailable(reason=f"{' and '.join(absent)} {verb} not installed", remedy=REMEDY)
    for library in LIBRARIES:
        version = versions[library.name]
        if version is not None and not _fits(library, version):
            return Unavailable(
                reason=f"{library.name} {version} is installed, "
                f"but {library.requirement.removeprefix(library.name)} is needed",
                remedy=REMEDY,
            )
    return None


def _fits(library: Library, version: str) -> bool:
    public = version.partition("+")[0]  # what follows the plus names a build
    numbers = tuple(int(number) for number in re.findall(r"\d+", public)[:3])
    return numbers >= library.oldest and (library.before is None or numbers < library.before)
