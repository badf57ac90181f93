"""What `--lora-adapters` names: `ID`, `ID@REVISION`, `NAME=ID-OR-PATH`.

Looks into no file; only whether there is one, since names of files may have an `@`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backplane_launcher.local_path import is_here, looks_local
from backplane_launcher.usage import UsageError


@dataclass(frozen=True, kw_only=True)
class AdapterName:
    """One adapter: the name that requests use, and the Hub id or local path it comes from."""

    name: str
    origin: str
    revision: str | None = None


def parse_adapters(texts: Sequence[str]) -> tuple[AdapterName, ...]:
    """The adapters that the flag names, one a text.

    Raises:
        UsageError: one is none of the three forms, or two have one name.
    """
    adapters: list[AdapterName] = []
    for text in texts:
        adapter = _parse(text)
        if any(adapter.name == other.name for other in adapters):
            raise UsageError(
                f"--lora-adapters names {adapter.name} twice",
                remedy="give one of them another name: NAME=ID-OR-PATH",
            )
        adapters.append(adapter)
    return tuple(adapters)


def _parse(text: str) -> AdapterName:
    name, equals, rest = text.partition("=")
    origin, at, revision = _origin(rest if equals else text)
    parts = (name if equals else origin, origin, *((revision,) if at else ()))
    if not all(part.strip() for part in parts) or "=" in rest or "@" in revision:
        raise UsageError(
            f"--lora-adapters {text} is none of ID, ID@REVISION and NAME=ID-OR-PATH",
            remedy="for example owner/adapter@main or mine=/path/to/adapter",
        )
    return AdapterName(
        name=parts[0].strip(), origin=origin.strip(), revision=revision.strip() or None
    )


def _origin(text: str) -> tuple[str, str, str]:
    """What comes before the `@` of a revision, the `@`, and the revision; a path has neither."""
    path = text.strip()
    return (text, "", "") if looks_local(path) or is_here(path) else text.partition("@")
