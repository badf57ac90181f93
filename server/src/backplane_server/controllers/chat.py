"""`POST /v1/chat/completions`."""

from typing import Final

from litestar.types import ASGIApp

from backplane_server.dialects import chat
from backplane_server.dialects.chat_prompting import read_conversation
from backplane_server.dialects.chat_stream import ChatStream
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.not_yet import CHAT, DefinedFields
from backplane_server.dialects.openai_replies import ReplyHead, run_to_end
from backplane_server.dialects.openai_types import StreamOptions, StructuredOutputs
from backplane_server.web.body import BodyReader
from backplane_server.web.exchange import Exchange, PostRoute

_body: Final = BodyReader(
    ChatRequest,
    {"stream_options": StreamOptions, "structured_outputs": StructuredOutputs},
    unknown=DefinedFields(CHAT),
)


async def complete(current: Exchange, body: ChatRequest) -> ASGIApp:
    """The assistant's next turn, whole or as a stream."""
    model = current.services.generation.model
    settings = current.services.settings
    conversation = read_conversation(body, model)
    prompt = await conversation.prompt(model)
    asked = chat.plan(body, conversation, prompt, model, settings)
    generation = await current.start(asked.generation)
    name = asked.generation.adapter or model.name
    head = ReplyHead.make("chatcmpl", name, settings)
    if body.stream:
        return current.stream(ChatStream(head, asked, generation, body.stream_options))
    tokens = await run_to_end([generation], keep_tokens=asked.needs_tokens)
    return current.answer(chat.completion(head, asked, generation, tokens))


ROUTES: Final = {"/v1/chat/completions": PostRoute(_body, complete)}
