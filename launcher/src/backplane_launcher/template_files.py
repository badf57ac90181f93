"""The files that `--chat-template` and `--tokenizer-config-path` name, read before anything starts.

The servers read them again when a worker is up; what is wrong with them must be known by then.
"""

from pathlib import Path

import msgspec
from backplane_core.errors import SetupError

from backplane_launcher.settings import LaunchSettings


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _TokenizerConfig(msgspec.Struct):
    chat_template: str | list[_NamedTemplate] | None = None


def check_template_files(settings: LaunchSettings) -> None:
    """Refuse files that no server could use.

    Raises:
        SetupError: one is missing, is not text, or is no tokenizer_config.json.
    """
    template = settings.chat_template
    # As in the server: braces or a line break make it the template itself, else it is a path.
    if template is not None and "{" not in template and "\n" not in template:
        _read("--chat-template", template)
    if settings.tokenizer_config_path is not None:
        flag = "--tokenizer-config-path"
        text = _read(flag, settings.tokenizer_config_path)
        try:
            msgspec.json.decode(text, type=_TokenizerConfig)
        except msgspec.DecodeError as error:
            raise SetupError(
                f"{flag} {settings.tokenizer_config_path} is not a tokenizer_config.json: {error}",
                remedy="give it a file as models on the Hub have it",
            ) from error


def _read(flag: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
        why = error.strerror if isinstance(error, OSError) else f"it is not text in UTF-8 ({error})"
        raise SetupError(
            f"{flag} {path} cannot be read: {why}",
            remedy="check the path, its permissions and that it is a text file in UTF-8",
        ) from error
