"""Chat templates as models bring them in files beside their weights: which, and in what order.

Reads text and JSON; what Jinja makes of a template is the server's affair.
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from backplane_core.errors import ModelError

_log = logging.getLogger(__name__)

DEFAULT: Final = "default"
_JINJA: Final = "chat_template.jinja"
_MORE_JINJA: Final = "additional_chat_templates"
# In the order of `transformers`: the newest way of shipping a template goes first.
_CONFIGS: Final = ("chat_template.json", "tokenizer_config.json", "processor_config.json")

# What is worth fetching beside a model's weights.
TEMPLATE_FILES: Final = (_JINJA, *_CONFIGS)
_MAX_FILE_BYTES: Final = 64 << 20  # a tokenizer_config.json lists its added tokens too


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _Config(msgspec.Struct):
    chat_template: str | list[_NamedTemplate] | dict[str, str] | None = None


def read_template_file(path: Path) -> dict[str, str]:
    """The templates of one file: a config where its name ends in `.json`, else a source.

    Raises:
        ModelError: the file cannot be read, or is a config of another shape.
    """
    return read_template_config(path) if path.suffix == ".json" else {DEFAULT: _read(path)}


def read_templates(text: str) -> dict[str, str]:
    """The templates that an operator means by `text`: itself, or the path of their file.

    A brace or a line break makes it a template.

    Raises:
        ModelError: the file cannot be read, or holds no template.
    """
    if "{" in text or "\n" in text:
        return {DEFAULT: text}
    if templates := read_template_file(Path(text)):
        return templates
    raise ModelError(
        f"{text} holds no chat template", remedy="give a file that has one, or the template itself"
    )


def read_template_config(path: Path) -> dict[str, str]:
    """The templates of a JSON file's `chat_template`, by name; the unnamed one is "default".

    Raises:
        ModelError: the file cannot be read, or its JSON is of another shape.
    """
    text = _read(path)
    try:
        config = msgspec.json.decode(text, type=_Config).chat_template
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(
            f"{path} holds no `chat_template` that can be read: {error}",
            remedy="give a tokenizer_config.json or chat_template.json as models on the Hub have",
        ) from error
    if config is None:
        return {}
    if isinstance(config, str):
        return {DEFAULT: config}
    if isinstance(config, dict):
        return config
    return {entry.name: entry.template for entry in config}


def find_chat_templates(folder: Path) -> dict[str, str]:
    """The templates of a model's folder, from the first of its files that has any.

    A file that cannot be read is logged and passed over: a model without a chat template still
    continues text.
    """
    if (folder / _JINJA).is_file():
        paths = [folder / _JINJA, *sorted((folder / _MORE_JINJA).glob("*.jinja"))]
        found: dict[str, str] = {}
        for path in paths:
            if source := _lenient(path).get(DEFAULT):
                found[DEFAULT if path.parent == folder else path.stem] = source
        if found:
            return found
    for name in _CONFIGS:
        path = folder / name
        if path.is_file() and (templates := _lenient(path)):
            return templates
    return {}


def _lenient(path: Path) -> dict[str, str]:
    try:
        return read_template_file(path)
    except ModelError as error:
        _log.warning("a chat template is left out: %s", error)
        return {}


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ModelError(
                f"{path} is larger than {_MAX_FILE_BYTES} bytes",
                remedy="check that the path is the file that was meant",
            )
        return path.read_text("utf-8")
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path} is not text: it is not UTF-8 from byte {error.start} on",
            remedy="check that the path is the file that was meant",
        ) from error
