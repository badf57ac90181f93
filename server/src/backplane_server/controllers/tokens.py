"""`POST /tokenize`, `/detokenize` and `/chat_tokenize`: text and tokens without a generation."""

import asyncio
from typing import Final

from backplane_core.errors import ValidationError
from litestar.types import ASGIApp

from backplane_server.controllers.native import NESTED
from backplane_server.dialects.chat_prompting import read_conversation
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.native_types import (
    ChatTokenizeResponse,
    DetokenizeRequest,
    DetokenizeResponse,
    GenerateRequest,
    SimpleToken,
)
from backplane_server.services.served_model import ServedModel
from backplane_server.services.text_bounds import check_length
from backplane_server.tokenization.tokenizer import TokenSpan
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import Exchange, PostRoute

_text_body: Final = BodyReader(GenerateRequest, NESTED)
_tokens_body: Final = BodyReader(DetokenizeRequest)
_chat_body: Final = BodyReader(ChatRequest)


async def tokenize(current: Exchange, body: GenerateRequest) -> ASGIApp:
    """The tokens of `inputs` and where they stand in it."""
    model = current.services.generation.model
    add_special = body.add_special_tokens is not False
    return current.answer(await _tokens_of(model, body.inputs, "inputs", add_special=add_special))


async def detokenize(current: Exchange, body: DetokenizeRequest) -> ASGIApp:
    """The text that tokens stand for; special ones by their literal text."""
    model = current.services.generation.model
    token_ids = _token_ids(body, model)
    text = await asyncio.to_thread(
        model.table.text_of_all, token_ids, skip_special=bool(body.skip_special_tokens)
    )
    return current.answer(DetokenizeResponse(text=text, prompt=text))


async def chat_tokenize(current: Exchange, body: ChatRequest) -> ASGIApp:
    """The prompt that a chat makes, and its tokens; the template has the special ones."""
    model = current.services.generation.model
    text = await read_conversation(body, model).prompt(model)
    tokens = await _tokens_of(model, text, "messages", add_special=False)
    return current.answer(ChatTokenizeResponse(tokenize_response=tokens, templated_text=text))


async def _tokens_of(
    model: ServedModel, text: str, name: str, *, add_special: bool
) -> list[SimpleToken]:
    max_tokens = model.info.limits.max_input_tokens
    check_length(text, name, max_tokens, model.table)
    spans = await model.tokenizer.encode_spans(text, max_tokens, add_special=add_special, name=name)
    return await asyncio.to_thread(_simple_tokens, text, spans)


def _simple_tokens(inputs: str, spans: list[TokenSpan]) -> list[SimpleToken]:
    text = inputs.encode()
    return [
        SimpleToken(
            span.token_id,
            text[span.start : span.stop].decode("utf-8", "replace"),
            span.start,
            span.stop,
        )
        for span in spans
    ]


def _token_ids(body: DetokenizeRequest, model: ServedModel) -> list[int]:
    given = {"tokens": body.tokens, "ids": body.ids}
    lists = {name: ids for name, ids in given.items() if ids is not None}
    if len(lists) != 1:
        raise ValidationError("send the token ids as `tokens` or as `ids`", parameter="tokens")
    name, token_ids = lists.popitem()
    most = model.info.limits.max_total_tokens
    if len(token_ids) > most:
        raise ValidationError(
            f"`{name}` may hold at most {most} token ids. Given: {len(token_ids)}", parameter=name
        )
    unknown = next((one for one in token_ids if one >= len(model.table)), None)
    if unknown is not None:
        raise ValidationError(
            f"`{name}` holds token {unknown}, which is not one of the vocabulary's "
            f"{len(model.table)}",
            parameter=name,
        )
    return token_ids


ROUTES: Final = {
    "/tokenize": PostRoute(_text_body, tokenize, counts="nothing"),
    "/detokenize": PostRoute(_tokens_body, detokenize, counts="nothing"),
    "/chat_tokenize": PostRoute(_chat_body, chat_tokenize, counts="arrival"),
}
