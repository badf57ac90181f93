"""`backplane print-schema`: the API's description, printed by the server's own package.

In a child, since the launcher imports no server.
"""

import subprocess
import sys
from typing import TextIO

from backplane_core.errors import SetupError

from backplane_launcher.server_package import check_server_is_installed


def print_schema(output: TextIO) -> int:
    """Print the OpenAPI document.

    Raises:
        SetupError: the server is not installed, or its package is broken.
    """
    check_server_is_installed()
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
