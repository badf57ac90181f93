"""Prompts from a file: JSON lines or one JSON array, plain prompts or conversations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from backplane_launcher.bench.workload import Entry
from backplane_launcher.usage import UsageError

_REMEDY: Final = "write one object a line, with `prompt`, `messages` or `conversations`"


class _Message(msgspec.Struct):
    """OpenAI's words, and ShareGPT's."""

    role: str = ""
    content: Any = None
    from_: str = msgspec.field(name="from", default="")
    value: Any = None

    @property
    def speaker(self) -> str:
        return self.role or {"human": "user", "gpt": "assistant"}.get(self.from_, self.from_)

    @property
    def text(self) -> str:
        said = self.value if self.content is None else self.content
        return said if isinstance(said, str) else ""


class _Line(msgspec.Struct):
    prompt: str = ""
    messages: list[_Message] = []
    conversations: list[_Message] = []
    output_length: int | None = None
    max_tokens: int | None = None


def read_dataset(path: str) -> list[Entry]:
    """Read a file of prompts.

    Raises:
        UsageError: it cannot be read, a line of it is none of the forms, or it holds no prompt.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--dataset {path}: {error.strerror}") from error
    entries = [entry for line in _lines(path, text) if (entry := _entry(line)) is not None]
    if not entries:
        raise UsageError(f"--dataset {path} holds no prompt", remedy=_REMEDY)
    return entries


def _lines(path: str, text: bytes) -> Iterator[_Line]:
    if text.lstrip().startswith(b"["):
        try:
            yield from msgspec.json.decode(text, type=list[_Line])
        except msgspec.DecodeError as error:
            raise UsageError(f"--dataset {path}: {error}", remedy=_REMEDY) from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise UsageError(f"--dataset {path}, line {number}: {error}", remedy=_REMEDY) from error


def _entry(line: _Line) -> Entry | None:
    """What its user says; answers that the file holds are not sent: the server makes its own."""
    said = line.messages or line.conversations
    says = [message.text for message in said if message.speaker == "user" and message.text]
    says = says or ([line.prompt] if line.prompt else [])
    system = next((message.text for message in said if message.speaker == "system"), "")
    num_output = line.output_length or line.max_tokens
    return Entry(says=tuple(says), system=system, num_output=num_output) if says else None
