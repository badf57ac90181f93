"""`POST /v1/chat/completions`."""

from typing import Final

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects import chat
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.openai import ReplyHead
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange

_body: Final = BodyReader(ChatRequest, {"stream_options": StreamOptions})


class ChatController(Controller):
    """OpenAI's chat."""

    @post("/v1/chat/completions")
    async def complete(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """The assistant's next turn, whole or as a stream."""

        async def handle(current: Exchange, body: ChatRequest) -> ASGIApp:
            chat.check(body)
            model = services.generation.model
            model.note_name(body.model)
            prompt = await model.prompter.prompt(chat.template_messages(body.messages))
            generation = await current.start(chat.plan(body, prompt))
            head = ReplyHead.make("chatcmpl", model.name)
            if body.stream:
                options = body.stream_options or StreamOptions()
                return current.stream(
                    chat.ChatStream(
                        head,
                        generation,
                        logprobs=bool(body.logprobs),
                        include_usage=options.include_usage,
                    )
                )
            collector = chat.ChatCollector(generation, logprobs=bool(body.logprobs))
            async for events in generation.batches():
                for event in events:
                    collector.add(event)
            return current.answer(collector.completion(head))

        return await exchange(request, services, _body, handle)
