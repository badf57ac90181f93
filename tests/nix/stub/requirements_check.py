"""As nixpkgs does after a build: the wheel's requirements are its Nix dependencies, no others."""

import re
import sys
from importlib.metadata import distributions

site, name, *given = sys.argv[1:]


def normal(distribution: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


(wheel,) = distributions(path=[site])
required = {
    normal(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0])
    for line in wheel.requires or []
    if "extra ==" not in line
}
dependencies = {normal(dependency) for dependency in given}
if normal(wheel.name) != normal(name):
    sys.exit(f"pname is {name}, the wheel is {wheel.name}")
if required != dependencies:
    sys.exit(
        f"{name}: missing in Nix {sorted(required - dependencies)}, "
        f"not asked for by the wheel {sorted(dependencies - required)}"
    )
