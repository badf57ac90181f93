"""Prompts from a file: JSON lines or one JSON array, plain prompts or conversations."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from backplane_launcher.bench.workload import Entry
from backplane_launcher.usage import UsageError

_REMEDY: Final = "write one object a line, with `prompt`, `messages` or `conversations`"
_NUM_NAMED: Final = 5
# Rows that are well formed and that ordinary datasets have, but of which no prompt can be made.
_EMPTY: Final = "the prompt is empty"
_SILENT: Final = "no user speaks"
_NO_TEXT: Final = "what is said is more than text"

Length = Annotated[int, msgspec.Meta(ge=1)]


class _Message(msgspec.Struct):
    """OpenAI's words, and ShareGPT's."""

    role: str = ""
    content: Any = UNSET
    from_: str = msgspec.field(name="from", default="")
    value: Any = UNSET

    @property
    def speaker(self) -> str:
        return self.role or {"human": "user", "gpt": "assistant"}.get(self.from_, self.from_)

    @property
    def said(self) -> Any:
        return self.value if self.content is UNSET else self.content


class _Row(msgspec.Struct):
    prompt: str | UnsetType = UNSET
    messages: list[_Message] | UnsetType = UNSET
    conversations: list[_Message] | UnsetType = UNSET
    output_length: Length | None = None
    max_tokens: Length | None = None


_LENGTHS: Final = ("output_length", "max_tokens")
_KEYS: Final = ("prompt", *_LENGTHS)
_MISSPELT: Final = 0.82  # `num_tokens` and `input_length`, which others write, are at 0.8


class _LeftOutError(Exception):
    """Of this row no prompt can be made; says why."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a file holds. `remark` tells of rows that are left out, and why; empty for none."""

    entries: list[Entry]
    remark: str


def read_dataset(path: str) -> Dataset:
    """Read a file of prompts.

    Raises:
        UsageError: it cannot be read, a row of it is none of the forms, or it holds no prompt.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--dataset {path}: {error.strerror}") from error
    entries: list[Entry] = []
    left_out: dict[str, list[str]] = {}
    for place, row in _rows(path, text):
        try:
            entries.append(_entry(row))
        except _LeftOutError as reason:
            left_out.setdefault(str(reason), []).append(place)
        # A string that is no UTF-8 is found late, and is no error of msgspec's.
        except UnicodeDecodeError as error:
            raise UsageError(f"--dataset {path}, {place}: no UTF-8", remedy=_REMEDY) from error
        except (msgspec.DecodeError, ValueError) as error:
            raise UsageError(f"--dataset {path}, {place}: {error}", remedy=_REMEDY) from error
    remark = _remark(path, len(entries), left_out)
    if not entries:
        raise UsageError(remark or f"--dataset {path} holds no prompt", remedy=_REMEDY)
    return Dataset(entries=entries, remark=remark)


def _rows(path: str, text: bytes) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    """Every row, and how people find it."""
    if text.lstrip().startswith(b"["):
        try:
            rows = msgspec.json.decode(text, type=list[msgspec.Raw])
        except msgspec.DecodeError as error:
            raise UsageError(f"--dataset {path}: {error}", remedy=_REMEDY) from error
        yield from ((f"entry {number}", row) for number, row in enumerate(rows, 1))
    else:
        lines = enumerate(text.splitlines(), 1)
        yield from ((f"line {number}", line) for number, line in lines if line.strip())


def _entry(text: bytes | msgspec.Raw) -> Entry:
    """What its user says; answers that the file holds are not sent: the server makes its own.

    Raises:
        _LeftOutError: it is a row as it should be, but nothing can be asked with it.
        ValueError, msgspec.DecodeError: it is not.
    """
    row = msgspec.json.decode(text, type=_Row)
    _check_keys(row, list(msgspec.json.decode(text, type=dict[str, msgspec.Raw])))
    said = row.messages or row.conversations or []
    system, says = _texts(said, "system"), _texts(said, "user")
    if not says and row.prompt is UNSET:
        raise _LeftOutError(_SILENT)
    if not says and not row.prompt:
        raise _LeftOutError(_EMPTY)
    return Entry(
        says=tuple(says or [str(row.prompt)]),
        system=system[0] if system else "",
        num_output=row.output_length or row.max_tokens,
    )


def _check_keys(row: _Row, names: list[str]) -> None:
    """Find what is not called what it should be.

    A row with a prompt alone is of our own form and has only what we read. Conversations come from
    elsewhere, with ids, sources and ratings: there, only what looks like one of ours is refused.

    Raises:
        ValueError: it has nothing that can be asked, or another key than those there are.
    """
    if row.messages is row.conversations is UNSET:
        if row.prompt is UNSET:
            told = _listed(names[:_NUM_NAMED], "and")
            raise ValueError(f"it has only {told}" if names else "it has nothing")
        if unknown := [name for name in names if name not in _KEYS]:
            told = _listed(unknown[:_NUM_NAMED], "and")
            raise ValueError(f"it has {told} beside {_listed(list(_KEYS), 'or')}")
        return
    for name in names:
        if name not in _LENGTHS and (near := get_close_matches(name, _LENGTHS, 1, _MISSPELT)):
            raise ValueError(f"it has `{name}`, which is no key: `{near[0]}` is")


def _listed(names: list[str], conjunction: str) -> str:
    """Names in a sentence."""
    quoted = [f"`{name}`" for name in names]
    return f" {conjunction} ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def _texts(messages: list[_Message], speaker: str) -> list[str]:
    """What one speaker says, turn by turn."""
    texts: list[str] = []
    for number, message in enumerate(messages, 1):
        if not message.speaker:
            raise ValueError(f"message {number} has no `role`")
        if message.speaker != speaker:
            continue
        if message.said is UNSET:
            raise ValueError(f"message {number} has no `content`")
        if not isinstance(message.said, str):
            raise _LeftOutError(_NO_TEXT)
        if message.said:
            texts.append(message.said)
    return texts


def _remark(path: str, num_used: int, left_out: dict[str, list[str]]) -> str:
    if not left_out:
        return ""
    num = sum(map(len, left_out.values()))
    reasons = [
        f"{reason} ({places[0]}{f' and {len(places) - 1} more' if places[1:] else ''})"
        for reason, places in left_out.items()
    ]
    verb = "is" if num == 1 else "are"
    return f"--dataset {path}: {num} of {num + num_used} {verb} left out: {', '.join(reasons)}"
