"""Compiles `native/*.c` where there is a C compiler; without one torch's own operations do.

The library is for every processor of its architecture: what newer ones can do better is chosen when
it runs. `python hatch_build.py` compiles it where it stands, for a checkout.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
FOLDER = ROOT / "src" / "backplane_torch" / "engine" / "devices" / "native"
LIBRARY = FOLDER / "libkernels.so"
# Errors of C's functions are not looked at: without that loops stay loops. Threads are torch's, so
# OpenMP is there for its vectors alone, and not linked. Vectors are handed to nobody outside.
FLAGS = (
    *("-O3", "-std=gnu11", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-Wno-psabi"),
)


def compile_library() -> bool:
    """Compile into place; False, no library, and a line that says why, where that fails."""
    try:
        _compile()
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip()
        print(f"the torch backend does without compiled code: {why[-500:]}", file=sys.stderr)
        with contextlib.suppress(OSError):
            LIBRARY.unlink(missing_ok=True)  # an older one may be of another processor or source
        return False
    return True


def _compile() -> None:
    configured = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    compiler = next((one for one in (configured, ["cc"]) if one and shutil.which(one[0])), None)
    if compiler is None or sys.platform == "win32":
        raise FileNotFoundError("there is no C compiler")
    files = sorted(FOLDER.glob("*.[ch]"))
    checksum = zlib.crc32(b"".join(path.read_bytes() for path in files))
    sources = [str(path) for path in files if path.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        made = Path(scratch) / LIBRARY.name
        subprocess.run(  # noqa: S603 -- the compiler that Python itself was configured with
            [*compiler, *FLAGS, f"-DSOURCES={checksum}u", *sources, "-o", str(made), "-lm"],
            capture_output=True,
            text=True,
            check=True,
        )
        made.replace(LIBRARY)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    pass
else:

    class KernelsBuildHook(BuildHookInterface):  # type: ignore[type-arg] -- hatchling's is untyped
        """Puts the library into the wheel, which is then one of this platform."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's signature
            """Before the wheel is packed."""
            if self.target_name == "wheel" and compile_library():
                build_data["pure_python"] = False
                # Plain C, called by ctypes: any Python 3, one platform.
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["tag"] = f"py3-none-{platform}"
                build_data["artifacts"].append(LIBRARY.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    sys.exit(0 if compile_library() else 1)
