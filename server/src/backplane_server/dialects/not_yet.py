"""Parameters that the APIs define and this version lacks: refused by name, never ignored.

Those whose names alone are known stand here; those with a field are refused by their dialect.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from backplane_core.errors import UnsupportedError

_OPENAI: Final = {
    "adapter_id",
    "allowed_token_ids",
    "bad_words",
    "grammar",
    "include_reasoning",
    "length_penalty",
    "prediction",
    "prompt_logprobs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "use_beam_search",
    "verbosity",
    "web_search_options",
}
_CHAT: Final = _OPENAI | {
    "best_of",
    "echo",
    "suffix",
}
_COMPLETIONS: Final = _OPENAI | {
    "add_generation_prompt",
    "audio",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "function_call",
    "functions",
    "modalities",
    "reasoning_effort",
    "tool_choice",
    "tool_prompt",
    "tools",
}
_NOTHING: Final[tuple[Any, ...]] = (None, False, "", [], {})
# What asks for nothing where it is not the same as leaving the parameter out.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "best_of": (None, 0, 1),
    "add_generation_prompt": (None, True),
    "function_call": (None, "none", "auto"),
    "include_reasoning": (None, True),
    "length_penalty": (None, 1),
    "modalities": (None, [], ["text"]),
    "reasoning_effort": (None, "none"),
    "tool_choice": (None, "none", "auto"),
    "verbosity": (None, "medium"),
}


Neutral = Mapping[str, tuple[Any, ...]]


def _neutral(names: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    return {name: _NEUTRAL.get(name, _NOTHING) for name in names}


# Names that a route's struct lacks → what asks for nothing there.
CHAT: Final[Neutral] = _neutral(_CHAT)
COMPLETIONS: Final[Neutral] = _neutral(_COMPLETIONS)


def refuse_not_yet(parameters: Mapping[str, Any], neutral: Neutral = _NEUTRAL) -> None:
    """Refuse the first parameter that asks for something.

    Args:
        parameters: the client's name → its value, or whatever asks for it.
        neutral: name → the values that ask for nothing.

    Raises:
        UnsupportedError: naming the parameter.
    """
    for name, value in parameters.items():
        if value not in neutral.get(name, _NOTHING):
            raise UnsupportedError(f"`{name}` is not available in this version", parameter=name)


class DefinedFields:
    """Refuses fields of a body that have no field in its struct, but a meaning elsewhere.

    Args:
        names: of them, with the values that ask for nothing.
    """

    def __init__(self, names: Neutral) -> None:
        self._names = names

    def check(self, fields: Mapping[str, msgspec.Raw]) -> None:
        """Look at what a body's struct did not take.

        Raises:
            UnsupportedError: one of the names, and it asks for something.
        """
        refuse_not_yet(
            {name: msgspec.json.decode(raw) for name, raw in fields.items() if name in self._names},
            self._names,
        )
