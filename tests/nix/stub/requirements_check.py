"""As nixpkgs does after a build: the wheel's requirements are its Nix dependencies, no others."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions

site, name, search_path, *given = sys.argv[1:]


def normal(distribution: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


(wheel,) = distributions(path=[site])
others = {normal(other.name): other for other in distributions(path=search_path.split(":"))}


def needed(lines: list[str] | None, extra: str | None = None) -> Iterator[str]:
    """Distributions that requirements ask for, by themselves or under an extra."""
    for line in lines or []:
        marker = re.search(r"extra == ['\"]([\w.-]+)['\"]", line)
        if (marker and marker[1]) != extra:
            continue
        asked = re.match(r"([A-Za-z0-9._-]+)(?:\[([\w.,-]+)])?", line)
        if asked is None:
            sys.exit(f"{name}: a requirement that cannot be read: {line}")
        yield normal(asked[1])
        for wanted in (asked[2] or "").split(",") if asked[2] else ():
            yield from needed(others[normal(asked[1])].requires, wanted)


required = set(needed(wheel.requires))
dependencies = {normal(dependency) for dependency in given}
if normal(wheel.name) != normal(name):
    sys.exit(f"pname is {name}, the wheel is {wheel.name}")
if required != dependencies:
    sys.exit(
        f"{name}: missing in Nix {sorted(required - dependencies)}, "
        f"not asked for by the wheel {sorted(dependencies - required)}"
    )
