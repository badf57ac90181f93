"""TGI's LOG_LEVEL: a level, or a filter of its log library such as `info,text_generation=debug`."""

from typing import Final

_LEVELS: Final = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "critical": "error",
    "off": "error",
}
_FROM_CHATTY: Final = ("debug", "info", "warning", "error")
_THEIR_PROGRAM: Final = "text_generation"
_OURS: Final = (_THEIR_PROGRAM, "backplane")


def level_of(text: str) -> str | None:
    """The level for the whole log; None where the text names none.

    Of a filter count the part that names no target and those for TGI's own parts, and of these
    the one that says most. A filter for other targets alone is for parts that are not here: info.
    """
    levels: list[str] = []
    is_filter = False
    for directive in (part.strip().lower() for part in text.split(",")):
        target, equals, word = directive.rpartition("=")
        if not equals and word.startswith(_THEIR_PROGRAM):
            target, word = word, "trace"  # a part without a level: all that it has to say
        if word not in _LEVELS:
            continue
        is_filter = True
        if not target or target.startswith(_OURS):
            levels.append(_LEVELS[word])
    if levels:
        return min(levels, key=_FROM_CHATTY.index)
    return "info" if is_filter else None
