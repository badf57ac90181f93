"""`backplane download-weights`: a model and its adapters brought here ahead of time."""

import sys
from collections.abc import Mapping
from typing import TextIO

from backplane_core.process import configure_logging

from backplane_launcher.adapters import bring_adapters
from backplane_launcher.commands import DownloadCommand
from backplane_launcher.console_progress import ConsoleProgress, DownloadsOnly
from backplane_launcher.model_download import bring_model


def download_weights(command: DownloadCommand, environ: Mapping[str, str], output: TextIO) -> int:
    """Download what is not here yet; one line with the local path for each thing asked for.

    Raises:
        BackplaneError: something is not to be had.
    """
    settings = command.settings
    configure_logging(settings.log_level, as_json=settings.json_output, label="download")
    progress = DownloadsOnly(ConsoleProgress(sys.stderr, as_json=settings.json_output))
    model = bring_model(settings, command.catalogue, environ, progress)
    adapters = bring_adapters(settings, environ, progress)
    output.write(f"{model.path or f'{model.model_id} is made by a backend, from no files'}\n")
    output.writelines(f"{adapter.path}\n" for adapter in adapters)
    return 0
