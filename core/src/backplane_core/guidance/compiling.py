"""A wire `Grammar` to a compiled one, under limits; what is wrong with it, in one sentence.

Used by workers on the model's vocabulary and by servers' checkers on one of bytes alone.
"""

import json
import re
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark

from backplane_core.errors import ValidationError
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.guidance.trouble import trouble_of
from backplane_core.messages import Grammar

# Which tokens spell a text is the model's to say, also where the grammar knows the text. It
# stands last, since the last of several is in force.
_OPTIONS: Final = '\n%llguidance {"no_forcing": true}\n'
# Between JSON's tokens a small model may else write blanks until its room is used up: one blank
# may stand there, or a line break and an indentation.
_JSON_DEFAULTS: Final[Any] = {"whitespace_pattern": r"[ ]|\r?\n[ \t]{0,20}"}

_MAX_REASON_CHARS: Final = 300
_NAMES: Final = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}


def compile_grammar(grammar: Grammar, tokenizer: LLTokenizer, limits: GuidanceLimits) -> LLMatcher:
    """A matcher at the start of the grammar.

    Raises:
        ValidationError: it is too long, not a grammar, too complex, or matches no text.
    """
    name = _NAMES[grammar.kind]
    num_bytes = len(grammar.source.encode(errors="replace"))
    if num_bytes > limits.max_source_bytes:
        raise ValidationError(
            f"the {name} has {num_bytes} bytes; at most {limits.max_source_bytes} are taken",
            parameter="grammar",
        )
    matcher = LLMatcher(tokenizer, lark_of(grammar), log_level=0, limits=_parser_limits(limits))
    if matcher.is_error():
        raise ValidationError(
            f"the {name} cannot be used: {_reason(grammar, matcher.get_error())}",
            parameter="grammar",
        )
    return matcher


def check_first_mask(grammar: Grammar, matcher: LLMatcher) -> None:
    """Whether any token can begin.

    Raises:
        ValidationError: none can, or finding out is too complex.
    """
    matcher.compute_bitmask()
    if matcher.is_error():
        raise ValidationError(
            f"the {_NAMES[grammar.kind]} cannot be used: {trouble_of(matcher)}",
            parameter="grammar",
        )


def lark_of(grammar: Grammar) -> str:
    """A grammar of any kind in llguidance's dialect of Lark.

    Raises:
        ValidationError: a JSON schema that is not a JSON object.
    """
    match grammar.kind:
        case "lark":
            source = grammar.source
        case "regex":
            # What is called a digit, a letter or a blank is one of ASCII, as in JSON schemas and
            # in TGI: who asks for \d{3} does not expect it in Devanagari.
            source = f"start: /{regex_to_lark(grammar.source, 'dws')}/"
        case "json_schema":
            source = f"start: %json {_with_defaults(grammar.source)}"
    return source + _OPTIONS


def _with_defaults(schema: str) -> str:
    try:
        made = json.loads(LLMatcher.grammar_from_json_schema(schema, defaults=_JSON_DEFAULTS))
        compiled = made["grammars"][0]["json_schema"]
    except (ValueError, RecursionError):
        compiled = None
    if not isinstance(compiled, dict):
        raise ValidationError("the JSON schema is not a JSON object", parameter="grammar")
    return json.dumps(compiled, ensure_ascii=False)


def _parser_limits(limits: GuidanceLimits) -> LLParserLimits:
    return LLParserLimits(
        max_items_in_row=limits.max_items_in_row,
        initial_lexer_fuel=limits.initial_lexer_fuel,
        step_lexer_fuel=limits.step_lexer_fuel,
        step_max_items=limits.step_max_items,
        max_lexer_states=limits.max_lexer_states,
        max_grammar_size=limits.max_grammar_size,
        verbose_errors=False,
    )


def _reason(grammar: Grammar, error: str) -> str:
    """The compiler's own words on what is wrong, without the excerpt it shows."""
    if grammar.kind == "lark":
        reason = error.partition("\n")[0]
    elif found := re.search(r"^error: (.+)$", error, re.MULTILINE):
        reason = found[1]
    else:
        reason = error.partition("\n")[0]
        reason = re.sub(r"^at \d+\(\d+\): ", "", reason)
        reason = reason.removeprefix("failed to compile JSON schema: ")
    return reason[:_MAX_REASON_CHARS] or "it is too complex"
