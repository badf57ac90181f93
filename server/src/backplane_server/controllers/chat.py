"""`POST /v1/chat/completions`."""

from typing import Final

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects import chat
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.not_yet import CHAT, DefinedFields
from backplane_server.dialects.openai_replies import ReplyHead, run_to_end
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.services.services import Services
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import AnyRequest, Exchange, exchange

_body: Final = BodyReader(
    ChatRequest, {"stream_options": StreamOptions}, unknown=DefinedFields(CHAT)
)


class ChatController(Controller):
    """OpenAI's chat."""

    @post("/v1/chat/completions")
    async def complete(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """The assistant's next turn, whole or as a stream."""

        async def handle(current: Exchange, body: ChatRequest) -> ASGIApp:
            chat.check(body)
            model = services.generation.model
            prompt = await model.prompter.prompt(chat.template_messages(body.messages))
            generation = await current.start(chat.plan(body, prompt, model, services.settings))
            head = ReplyHead.make(
                "chatcmpl",
                generation.request.adapter or model.name,
                strict=services.settings.tgi_strict,
            )
            if body.stream:
                return current.stream(
                    chat.ChatStream(
                        head,
                        generation,
                        logprobs=bool(body.logprobs),
                        options=body.stream_options,
                    )
                )
            tokens = await run_to_end([generation], keep_tokens=bool(body.logprobs))
            return current.answer(chat.completion(head, generation, tokens))

        return await exchange(request, services, _body, handle)
