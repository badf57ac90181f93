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
# Of a filter, the parts that are here: TGI's names for them, and their own.
_OURS: Final = ("text_generation", "backplane")

# For people.
TAKEN: Final = f"{', '.join(_LEVELS)}, or a filter such as info,text_generation_router=debug"


def level_of(text: str) -> str | None:
    """The level for the whole log; None where the text names none.

    Of a filter count the part that names no target and those for parts of TGI or Backplane, and of
    these the one that says most. A filter for other targets alone is for parts that are not here:
    info.
    """
    levels: list[str] = []
    is_filter = False
    for directive in (part.strip().lower() for part in text.split(",")):
        target, equals, word = directive.rpartition("=")
        if not equals and word.startswith(_OURS):
            target, word = word, "trace"  # a part without a level: all that it has to say
        if word not in _LEVELS:
            continue
        is_filter = True
        if not target or target.startswith(_OURS):
            levels.append(_LEVELS[word])
    if levels:
        return min(levels, key=_FROM_CHATTY.index)
    return "info" if is_filter else None
