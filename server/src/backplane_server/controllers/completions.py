"""`POST /v1/completions`."""

import asyncio
from typing import Final

from litestar.types import ASGIApp

from backplane_server.dialects import completions
from backplane_server.dialects.completions_stream import CompletionStream
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.dialects.not_yet import COMPLETIONS, DefinedFields
from backplane_server.dialects.openai_replies import ReplyHead, run_to_end
from backplane_server.dialects.openai_types import StreamOptions, StructuredOutputs
from backplane_server.dialects.text_logprobs import echo_of
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import Exchange, PostRoute

_body: Final = BodyReader(
    CompletionRequest,
    {"stream_options": StreamOptions, "structured_outputs": StructuredOutputs},
    unknown=DefinedFields(COMPLETIONS),
)


async def complete(current: Exchange, body: CompletionRequest) -> ASGIApp:
    """Continuations of one prompt or several, whole or as a stream."""
    model = current.services.generation.model
    settings = current.services.settings
    asked = completions.plan(body, model, settings)
    generations = await current.start_all(asked.requests)
    if asked.scores_only:
        for generation in generations:
            generation.tell_only()
    echoes = (
        [await asyncio.to_thread(echo_of, generation) for generation in generations]
        if asked.echo
        else []
    )
    name = asked.requests[0].adapter or model.name
    head = ReplyHead.make("cmpl", name, settings)
    if body.stream:
        stream = CompletionStream(head, asked, generations, echoes, body.stream_options)
        return current.stream(stream)
    tokens = await run_to_end(generations, keep_tokens=asked.needs_tokens)
    return current.answer(completions.completion(head, asked, generations, echoes, tokens))


ROUTES: Final = {"/v1/completions": PostRoute(_body, complete)}
