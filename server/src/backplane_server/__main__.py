"""`python -m backplane_server DOCUMENT`: serve HTTP as the launch document says.

Exit status: 0 after a shutdown, 3 if a person must change something, 4 if the launcher died.
"""

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from backplane_core.control import ServerLaunch
from backplane_core.errors import BackplaneError
from backplane_core.process import configure_logging, die_with_parent, leave_stopping_to_parent

SETUP_STATUS: Final = 3

_log = logging.getLogger("backplane_server")


def main(arguments: list[str]) -> int:
    """Read the launch document named by the only argument and run the server."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m backplane_server DOCUMENT.json\n")
        return 2
    gc.disable()  # until all is loaded: nothing of that is garbage, and looking takes a tenth of it
    settings = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=ServerLaunch)
    die_with_parent(signal.SIGTERM)
    # SIGTERM begins the drain that the launcher would order.
    leave_stopping_to_parent(signal.SIGINT, signal.SIGHUP)
    configure_logging(
        settings.log_level, as_json=settings.log_json, label=settings.server_id, gather=True
    )
    # prometheus_client decides by this, when it is imported, where its values lie.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if settings.metrics_dir is not None:
        Path(settings.metrics_dir).mkdir(mode=0o700, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = settings.metrics_dir
    from backplane_server.process import ServerProcess  # noqa: PLC0415 -- not before that

    try:
        return uvloop.run(ServerProcess(settings).run())
    except BackplaneError as error:
        _log.error("%s", error)
    except OSError as error:
        place = f"{settings.hostname}:{settings.port}"
        _log.error("cannot serve at %s: %s", place, error.strerror)
    return SETUP_STATUS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
