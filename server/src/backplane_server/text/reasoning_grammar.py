"""Lets a model think before the answer that a grammar holds it to."""

import json
from collections.abc import Mapping
from typing import Final

from backplane_core.guidance.compiling import lark_of
from backplane_core.messages import Grammar

from backplane_server.text.reasoning import ReasoningFamily

_SPACE: Final = r"SPACE: /[ \n]{1,4}/"
_ANYTHING: Final = r"/(.|\n)*/"


def after_reasoning(
    grammar: Grammar,
    family: ReasoningFamily,
    *,
    begins_inside: bool,
    special_tokens: Mapping[str, int],
) -> Grammar:
    """The grammar of thinking that ends, and then what `grammar` says.

    Args:
        grammar: of the answer; it does not begin with the family's opening tag itself.
        family: whose tags surround the thinking.
        begins_inside: the prompt opened it, so there is no opening tag. If not, there may be
            thinking or none.
        special_tokens: the vocabulary's special tokens by their literals.
    """
    opening = _tag(family.opening, special_tokens)
    thinking = ["thinking: " + " ".join([*([] if begins_inside else [opening]), "thought SPACE?"])]
    if family.closing in special_tokens:
        thinking.append(f"thought: THOUGHT {_tag(family.closing, special_tokens)}")
        thinking.append(f"THOUGHT: {_ANYTHING}")
    else:
        thinking.append(f"thought[suffix={json.dumps(family.closing)}]: {_ANYTHING}")
    lines = [
        f"start: {'thinking' if begins_inside else 'thinking?'} answer",
        *thinking,
        _SPACE,
        f"answer: %lark {{\n{lark_of(grammar)}\n}}",
    ]
    return Grammar(kind="lark", source="\n".join(lines) + "\n")


def _tag(literal: str, special_tokens: Mapping[str, int]) -> str:
    token_id = special_tokens.get(literal)
    return json.dumps(literal) if token_id is None else f"<[{token_id}]>"
