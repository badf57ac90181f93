"""The files that `--chat-template` and `--tokenizer-config-path` name, read before anything starts.

The servers read them again when a worker is up; what is wrong with them must be known by then.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from backplane_core.chat_templates import read_template_config, read_templates
from backplane_core.errors import ModelError, SetupError

from backplane_launcher.settings import LaunchSettings


def check_template_files(settings: LaunchSettings) -> None:
    """Refuse files that no server could use.

    Raises:
        SetupError: one is missing, is not text, or is not what its flag wants.
    """
    if settings.chat_template is not None:
        with _named("--chat-template"):
            read_templates(settings.chat_template)
    if settings.tokenizer_config_path is not None:
        with _named("--tokenizer-config-path"):
            read_template_config(Path(settings.tokenizer_config_path))


@contextmanager
def _named(flag: str) -> Generator[None]:
    """What is wrong with a file, with the flag that names it."""
    try:
        yield
    except ModelError as error:
        raise SetupError(f"{flag} {error.message}", remedy=error.remedy) from error
