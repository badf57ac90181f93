"""`python -m backplane_server.grammars.child`: compiles grammars for one server, on two pipes.

On a vocabulary of single bytes and the model's own special tokens: it is the grammar that is
checked, and the worker knows the rest.
"""

import os
from functools import lru_cache
from typing import Any, Final

import msgspec
from backplane_core.errors import ErrorInfo, ValidationError
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar
from backplane_core.vocabulary import Vocabulary

from backplane_server.helper_process.child import serve, settle_in, unforeseen
from backplane_server.helper_process.messages import Answer, Question

# What is being generated goes before what is only asked for, where they share the cores.
_NICENESS: Final = 10


class SpecialTokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a grammar may name of a vocabulary: its special tokens, by id and text.

    `size` is how many tokens there are in all.
    """

    size: int
    eos_token_ids: tuple[int, ...] = ()
    texts: tuple[tuple[int, bytes], ...] = ()


class Check(Question, frozen=True, kw_only=True, tag=True):
    """Is this a grammar that a worker could follow?"""

    grammar: Grammar
    special_tokens: SpecialTokens


class Checked(Answer, frozen=True, kw_only=True, tag=True):
    """What is wrong with it; or the grammar to send, where it is another (GBNF becomes Lark)."""

    error: ErrorInfo | None = None
    converted: Grammar | None = None


def answer(question: Check) -> Checked:
    """Compile one grammar; every failure is an answer."""
    try:
        grammar = as_lark(question.grammar)
        _compile(grammar, question.special_tokens)
    except ValidationError as error:
        return Checked(id=question.id, error=ErrorInfo.of(error))
    return Checked(id=question.id, converted=None if grammar is question.grammar else grammar)


def as_lark(grammar: Grammar) -> Grammar:
    """The very same grammar, unless it is GBNF.

    Raises:
        ValidationError: it is neither Lark nor GBNF.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark, is_lark_syntax  # noqa: PLC0415 - after the limits

    if grammar.kind != "lark" or is_lark_syntax(grammar.source):
        return grammar
    try:
        return Grammar(kind="lark", source=gbnf_to_lark(grammar.source))
    except MemoryError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or ["it cannot be read"]
        raise ValidationError(
            f"the grammar is neither Lark, whose first rule is `start`, nor GBNF, whose first is "
            f"`root`: {lines[0][:200]}"
        ) from error


def _compile(grammar: Grammar, special_tokens: SpecialTokens) -> None:
    from backplane_core.guidance.compiling import (  # noqa: PLC0415 - after the limits
        check_first_mask,
        compile_grammar,
    )

    matcher = compile_grammar(grammar, _tokenizer(special_tokens), GuidanceLimits())
    check_first_mask(grammar, matcher)


@lru_cache(maxsize=2)
def _tokenizer(special_tokens: SpecialTokens) -> Any:
    from backplane_core.guidance.tokenizing import make_tokenizer  # noqa: PLC0415 - after the limits

    tokens = [b""] * special_tokens.size
    for token_id, text in special_tokens.texts:
        tokens[token_id] = text
    vocabulary = Vocabulary(
        tokens=[*tokens, *(bytes([byte]) for byte in range(256))],
        special_token_ids=tuple(token_id for token_id, _ in special_tokens.texts),
        eos_token_ids=special_tokens.eos_token_ids,
    )
    return make_tokenizer(vocabulary)


def failed(question_id: int, error: Exception) -> Checked:
    """The answer where nobody foresaw the failure."""
    return Checked(id=question_id, error=unforeseen(error, "the grammar", ValidationError))


def main() -> None:
    """Answer until standard input ends."""
    settle_in()
    os.nice(_NICENESS)
    serve(Check, answer, failed)


if __name__ == "__main__":
    main()
