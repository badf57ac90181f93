"""`backplane print-schema`: the API's description, printed by the server's own package.

In a child, since the launcher imports no server.
"""

import importlib.util
import subprocess
import sys
from typing import TextIO

from backplane_core.errors import SetupError


def print_schema(output: TextIO) -> int:
    """Print the OpenAPI document.

    Raises:
        SetupError: the server is not installed, or its package is broken.
    """
    if importlib.util.find_spec("backplane_server") is None:
        raise SetupError("the HTTP server is not installed", remedy="pip install backplane-server")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "backplane_server.openapi"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SetupError(
            f"the server's package cannot describe its API: {said[-1] if said else 'no output'}",
            remedy="reinstall backplane-server",
        )
    output.write(done.stdout.decode().rstrip("\n") + "\n")
    return 0
