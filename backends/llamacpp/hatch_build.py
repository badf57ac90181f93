"""Compiles `native/rows.c` where there is a C compiler; without one the backend does with numpy.

The library is built for every generation of processors at once, so a wheel runs on all of its kind.
`python hatch_build.py` compiles it where it stands, for a checkout.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "src" / "backplane_llamacpp" / "native"
SOURCE, LIBRARY = FOLDER / "rows.c", FOLDER / "librows.so"
# Errors of C's functions are not looked at: without that loops stay loops.
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
LOOPS = ("-fopenmp-simd",)  # reads the pragmas that make loops vectors; no library comes with it


def compile_library() -> bool:
    """Compile into place, whole or not at all; False, and a line that says why, where it fails."""
    configured = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    compiler = next((one for one in (configured, ["cc"]) if one and shutil.which(one[0])), None)
    if compiler is None or sys.platform == "win32":
        print("no C compiler: sampling does with numpy", file=sys.stderr)
        return False
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        made = Path(scratch) / LIBRARY.name
        done = subprocess.run(  # noqa: S603 -- the compiler that Python itself was configured with
            [*compiler, *FLAGS, *LOOPS, str(SOURCE), "-o", str(made), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"sampling does with numpy: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return False
        made.replace(LIBRARY)
    return True


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    pass
else:

    class RowsBuildHook(BuildHookInterface):  # type: ignore[type-arg] -- hatchling's is untyped
        """Puts the library into the wheel, which is then one of this platform."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's signature
            """Before the wheel is packed."""
            if self.target_name == "wheel" and compile_library():
                build_data["pure_python"] = False
                # Plain C, called by ctypes: any Python 3, one platform.
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["tag"] = f"py3-none-{platform}"
                build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))


if __name__ == "__main__":
    sys.exit(0 if compile_library() else 1)
