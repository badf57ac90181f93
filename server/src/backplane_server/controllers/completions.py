"""`POST /v1/completions`."""

from typing import Final

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects import completions
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.dialects.not_yet import COMPLETIONS, DefinedFields
from backplane_server.dialects.openai_replies import ReplyHead, run_to_end
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange

_body: Final = BodyReader(
    CompletionRequest, {"stream_options": StreamOptions}, unknown=DefinedFields(COMPLETIONS)
)


class CompletionsController(Controller):
    """OpenAI's text completions."""

    @post("/v1/completions")
    async def complete(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """Continuations of one prompt or several, whole or as a stream."""

        async def handle(current: Exchange, body: CompletionRequest) -> ASGIApp:
            plans = completions.plan(body, services.settings.max_client_batch_size)
            model = services.generation.model
            model.note_name(body.model)
            generations = await current.start_all(plans)
            head = ReplyHead.make("cmpl", model.name)
            if body.stream:
                return current.stream(
                    completions.CompletionStream(
                        head,
                        generations,
                        logprobs=body.num_logprobs,
                        include_usage=body.wants_usage,
                    )
                )
            tokens = await run_to_end(generations, keep_tokens=body.num_logprobs is not None)
            return current.answer(
                completions.completion(head, generations, tokens, body.num_logprobs)
            )

        return await exchange(request, services, _body, handle)
