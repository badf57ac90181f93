"""`/v1/chat/completions`: a rendered conversation to a generation, its end to an answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backplane_core.control import ServerLaunch
from backplane_core.messages import Grammar
from msgspec import UNSET

from backplane_server.dialects.chat_prompting import Conversation
from backplane_server.dialects.chat_reading import ChoiceReader, ReadingPlan
from backplane_server.dialects.chat_types import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatRequest,
)
from backplane_server.dialects.constraints import CLIENT_GRAMMARS, constraint_of
from backplane_server.dialects.openai import (
    FINISH,
    STRICT_FINISH,
    FinishReason,
    chat_logprobs,
    generation_request,
    usage_of,
)
from backplane_server.dialects.openai_replies import ReplyHead, TokensByChoice
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel
from backplane_server.text.choice_decoder import ChoiceDecoder, Finish, TokenOut
from backplane_server.text.reasoning_grammar import after_reasoning
from backplane_server.tools.plan import ToolPlan


@dataclass(frozen=True)
class ChatPlan:
    """A request, understood.

    Attributes:
        generation: what is asked of a worker.
        reading: how its text is read.
        logprobs: whether those of the visible tokens are told.
    """

    generation: GenerationRequest
    reading: ReadingPlan
    logprobs: bool

    @property
    def needs_tokens(self) -> bool:
        """Whether the answer is made from more than texts: logprobs, or a count of thoughts."""
        return self.logprobs or self.reading.reasoning is not None

    def finish_reason(
        self, names: Mapping[Finish, FinishReason], finish: Finish, reader: ChoiceReader | None
    ) -> FinishReason:
        """Why an answer ended, in OpenAI's words."""
        if reader is None or not reader.is_call(finish):
            return names[finish]
        return "function_call" if self.tells_older_call else "tool_calls"

    @property
    def tells_older_call(self) -> bool:
        """Whether the client asked by `functions`, so a call is told as `function_call`."""
        return self.reading.tools is not None and self.reading.tools.older


def plan(
    body: ChatRequest,
    conversation: Conversation,
    prompt: str,
    model: ServedModel,
    settings: ServerLaunch,
) -> ChatPlan:
    """Translate a request whose conversation is rendered. The template has the special tokens."""
    tools = conversation.tools
    reasoning = model.reasoning
    # Of a rendered prompt its end tells whether the thinking has begun.
    beginning = prompt
    if reasoning is not None and (text := conversation.open_text) is not None:
        is_thought = text.rfind(reasoning.opening) > text.rfind(reasoning.closing)
        beginning = reasoning.opening if is_thought else reasoning.closing
    name, grammar = _constraint(body, tools)
    if reasoning is not None and grammar is not None:
        # The answer has to obey, not the thinking before it. A client's own grammar is taken as
        # it stands, and a backend without the means leaves no room for thoughts.
        if "lark" in model.info.capabilities.grammars and name not in CLIENT_GRAMMARS:
            grammar = after_reasoning(
                grammar,
                reasoning,
                begins_inside=reasoning.begins_inside(beginning),
                special_tokens=model.table.special_tokens,
            )
        else:
            reasoning = None
    asked = generation_request(
        body,
        model,
        prompt=prompt,
        add_special=False,
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=body.top_logprobs or 0 if body.logprobs else None,
        grammar=grammar,
        keep_stop=settings.tgi_strict,
        names={
            "prompt": "messages",
            "max_new_tokens": (
                "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
            ),
            "grammar": name,
        },
    )
    literals: frozenset[str] = frozenset()
    if tools is not None:
        literals |= tools.special_literals
    if reasoning is not None:
        literals |= frozenset(reasoning.special_literals)
    return ChatPlan(
        generation=replace(asked, special_literals=literals),
        reading=ReadingPlan(beginning=beginning, tools=tools, reasoning=reasoning),
        logprobs=bool(body.logprobs),
    )


def _constraint(body: ChatRequest, tools: ToolPlan | None) -> tuple[str, Grammar | None]:
    """What the text must obey, and the parameter that says so."""
    if tools is not None:
        return "tool_choice", tools.grammar
    return constraint_of(body) or ("grammar", None)


def completion(
    head: ReplyHead, asked: ChatPlan, generation: Generation, tokens: TokensByChoice
) -> ChatCompletion:
    """The answer, once every sequence has ended.

    Args:
        head: the reply's.
        asked: the request.
        generation: its generation.
        tokens: those of every sequence, where they are needed.
    """
    num_reasoning = None if asked.reading.reasoning is None else 0
    choices: list[ChatChoice] = []
    for decoder in generation.choices:
        mine = tokens.get((0, decoder.index), [])
        reader = None if asked.reading.plain else _read(asked, decoder, mine)
        if num_reasoning is not None and reader is not None:
            num_reasoning += reader.num_reasoning_tokens
        finish = decoder.finish or Finish.LENGTH
        names = STRICT_FINISH if head.strict else FINISH
        choices.append(
            ChatChoice(
                index=decoder.index,
                message=_message(asked, decoder, reader),
                logprobs=chat_logprobs(generation.model.table, mine) if asked.logprobs else None,
                finish_reason=asked.finish_reason(names, finish, reader),
            )
        )
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=choices,
        usage=usage_of([generation], num_reasoning=num_reasoning),
    )


def _read(asked: ChatPlan, decoder: ChoiceDecoder, tokens: list[TokenOut]) -> ChoiceReader:
    reader = asked.reading.reader()
    size = 0
    for token in tokens:
        size += len(token.text)
        reader.push(token.text)
    reader.finish(decoder.text[size:])
    return reader


def _message(
    asked: ChatPlan, decoder: ChoiceDecoder, reader: ChoiceReader | None
) -> AssistantMessage:
    if reader is None:
        return AssistantMessage(content=decoder.text)
    calls = reader.calls()
    older = asked.tells_older_call
    return AssistantMessage(
        content=reader.content or (None if calls or reader.reasoning else ""),
        reasoning_content=reader.reasoning or UNSET,
        tool_calls=calls if calls and not older else UNSET,
        function_call=calls[0].function if calls and older else UNSET,
    )
