"""`POST /v1/completions`."""

from typing import Final

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects import completions
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.dialects.openai import ReplyHead
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange
from backplane_server.web.merge import merge_batches

_body: Final = BodyReader(CompletionRequest, {"stream_options": StreamOptions})


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
                options = body.stream_options or StreamOptions()
                return current.stream(
                    completions.CompletionStream(
                        head,
                        generations,
                        logprobs=body.logprobs,
                        include_usage=options.include_usage,
                    )
                )
            collector = completions.CompletionCollector(generations, body.logprobs)
            async for prompt, events in merge_batches(generations):
                for event in events:
                    collector.add(prompt, event)
            return current.answer(collector.completion(head))

        return await exchange(request, services, _body, handle)
