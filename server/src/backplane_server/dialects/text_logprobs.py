"""Logprobs as `/v1/completions` tells them, and the prompt's own tokens where it is echoed."""

from collections.abc import Sequence
from dataclasses import dataclass

from backplane_server.dialects.openai_types import TextLogprobs
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import TokenOut
from backplane_server.text.detokenizer import IncrementalDetokenizer, TokenTable
from backplane_server.tokenization.tokenizer import align


@dataclass(frozen=True)
class Echo:
    """A prompt as it is shown: its text, and each token's share; the shares, joined, are it."""

    text: str
    pieces: list[str]


def echo_of(generation: Generation) -> Echo:
    """The prompt that a generation was made from.

    A text is shown as it was sent. Token ids, and a text of which only the end was kept, are
    decoded, without special tokens unless these are to be seen.
    """
    request, table = generation.request, generation.model.table
    token_ids = generation.prompt_token_ids
    if isinstance(request.prompt, str) and request.truncate is None:
        text, pieces = request.prompt, _shares(request.prompt, token_ids, table)
    else:
        shown = table.ids_shown(request.special_literals, everything=request.show_special)
        detokenizer = IncrementalDetokenizer(table, shown)
        pieces = [detokenizer.push(token_id) for token_id in token_ids]
        text = "".join(pieces) + detokenizer.finish()
    # A tokenizer that changes a text leaves some of it to no token.
    pieces[-1] += text[sum(map(len, pieces)) :]
    return Echo(text, pieces)


def _shares(text: str, token_ids: list[int], table: TokenTable) -> list[str]:
    """Each token's characters in a text; none for one that is not found there."""
    data = text.encode()
    starts = _character_starts(data)
    spans = align(data, token_ids, table.vocabulary)
    return [
        text[starts[span.start] : starts[span.stop]] if span.stop > span.start else ""
        for span in spans
    ]


def _character_starts(data: bytes) -> list[int]:
    """For each byte, and for the end, how many characters are complete before it."""
    starts = [0]
    num_complete = 0
    for position in range(1, len(data) + 1):
        if position == len(data) or data[position] & 0xC0 != 0x80:  # noqa: PLR2004 - UTF-8's marks
            num_complete += 1
        starts.append(num_complete)
    return starts


def prompt_tokens(generation: Generation, echo: Echo) -> list[TokenOut]:
    """The echoed prompt's tokens with their logprobs. Complete once new tokens arrive."""
    return [
        TokenOut(
            token.token_id,
            piece,
            silent=False,
            logprob=token.logprob,
            top_logprobs=token.top_logprobs,
        )
        for token, piece in zip(generation.prompt_tokens, echo.pieces, strict=True)
    ]


def text_logprobs(
    table: TokenTable, tokens: Sequence[TokenOut], start: int, *, top: int
) -> TextLogprobs:
    """Logprobs as parallel lists, with an entry for the token that ended the text too.

    Args:
        table: the model's vocabulary.
        tokens: in order.
        start: where the first token's text begins.
        top: how many alternatives are wanted; the chosen token stands among them in any case.
    """
    offsets: list[int] = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    return TextLogprobs(
        tokens=[token_name(table, token.token_id) for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[_alternatives(table, token) for token in tokens] if top else None,
        text_offset=offsets,
    )


def _alternatives(table: TokenTable, token: TokenOut) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    named: dict[str, float] = {}
    for token_id, logprob in [*(token.top_logprobs or []), (token.token_id, token.logprob)]:
        named.setdefault(token_name(table, token_id), logprob)
    return named


def token_name(table: TokenTable, token_id: int) -> str:
    """A token's own text; OpenAI's way of writing bytes that are not whole characters."""
    data = table.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{value:02x}" for value in data)
