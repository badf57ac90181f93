"""The server's own package, which the launcher runs and never imports."""

import importlib.util

from backplane_core.errors import SetupError


def check_server_is_installed() -> None:
    """Refuse to go on without it.

    Raises:
        SetupError: the server is not installed.
    """
    if importlib.util.find_spec("backplane_server") is None:
        raise SetupError("the HTTP server is not installed", remedy="pip install backplane-server")
