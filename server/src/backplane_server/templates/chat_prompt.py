"""A conversation to a prompt: which template, which variables, and how a last turn is continued.

Knows nothing of dialects: messages arrive as the plain mappings that templates expect.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backplane_core.chat_templates import DEFAULT, read_template_config, read_templates
from backplane_core.errors import TemplateError, ValidationError

from backplane_server.templates.origin import TemplateOrigin, broken_templates
from backplane_server.templates.renderer import TemplateRenderer

TOOL_USE: Final = "tool_use"
_NO_TEMPLATE: Final = "the model has no chat template"
_REMEDY: Final = "use a plain-text route, or start with --chat-template FILE"
_NO_CONTENT: Final = re.compile(r"content\b['\"]?\]?\s+is\s+(?:not\s+)?none\b", re.IGNORECASE)
_SHORT_IDS: Final = re.compile(r"\bid\b['\"]?\]?\s*\|\s*length\s*!=\s*9\b")
# What a template's variables may not be given from outside: they say what the server knows.
RESERVED: Final = frozenset(
    {
        "add_generation_prompt",
        "bos_token",
        "continue_final_message",
        "documents",
        "eos_token",
        "messages",
        "raise_exception",
        "strftime_now",
        "tools",
    }
)

Message = Mapping[str, Any]


def choose_templates(
    templates: Mapping[str, str], *, chat_template: str | None, tokenizer_config_path: str | None
) -> Mapping[str, str]:
    """The templates in force: the operator's, else their tokenizer config's, else the model's.

    Those of one source go together: an operator's template is not passed over for a model's own
    that is made for tools.

    Args:
        templates: the model's, by name; "default" is the one for chats.
        chat_template: Jinja source, or the path of a file that holds it (`.json`: a config).
        tokenizer_config_path: a `tokenizer_config.json`.

    Raises:
        ModelError: a file cannot be read, or is not what it should be.
    """
    if chat_template is not None:
        return read_templates(chat_template)
    if tokenizer_config_path is not None:
        return read_template_config(Path(tokenizer_config_path)) or templates
    return templates


def origin_of(
    chosen: Mapping[str, str],
    templates: Mapping[str, str],
    *,
    chat_template: str | None,
    tokenizer_config_path: str | None,
) -> TemplateOrigin:
    """Where those that `choose_templates` chose are from, given the same."""
    if chat_template is not None:
        is_source = "{" in chat_template or "\n" in chat_template
        return TemplateOrigin(flag="--chat-template", file=None if is_source else chat_template)
    if chosen is not templates:
        return TemplateOrigin(flag="--tokenizer-config-path", file=tokenizer_config_path)
    return TemplateOrigin()


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """What a conversation may bring beside its messages.

    Attributes:
        tools: OpenAI's tool objects; None or empty for none.
        documents: for templates that cite.
        variables: more for the template; none of them is `RESERVED`.
        add_generation_prompt: whether the prompt ends by opening the assistant's turn; None is
            yes, unless the last turn is the assistant's own text, which is then continued.
        continue_final_message: whether the last turn is left open where its text ends.
    """

    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    def continues(self, messages: Sequence[Message]) -> bool:
        """Whether the last message is to be gone on with.

        Raises:
            ValidationError: it is asked for, but cannot be, or a new turn is as well.
        """
        unfinished = bool(messages) and _is_unfinished(messages[-1])
        if self.continue_final_message is None:
            return unfinished and self.add_generation_prompt is None
        if self.continue_final_message and self.add_generation_prompt:
            raise ValidationError(
                "`continue_final_message` and `add_generation_prompt` cannot both be true: the "
                "answer either goes on with the last message or is a new one",
                parameter="continue_final_message",
            )
        if self.continue_final_message and not unfinished:
            raise ValidationError(
                "`continue_final_message` needs a last message of the assistant without tool calls",
                parameter="continue_final_message",
            )
        return self.continue_final_message


_PLAIN: Final = TemplateOptions()
_MODELS_OWN: Final = TemplateOrigin()


@dataclass(frozen=True, kw_only=True)
class TemplateTraits:
    """What a template expects of messages that others would stumble over, judged by its source.

    Attributes:
        knows_no_content: it asks whether a message's content is none, so a message that was
            nothing but calls has none there; elsewhere that is empty text.
        wants_short_ids: it refuses ids of calls that have not nine characters (Mistral's).
    """

    knows_no_content: bool = False
    wants_short_ids: bool = False

    @classmethod
    def of(cls, template: str) -> "TemplateTraits":
        """Look at a source."""
        return cls(
            knows_no_content=_NO_CONTENT.search(template) is not None,
            wants_short_ids=_SHORT_IDS.search(template) is not None,
        )


class ChatPrompter:
    """Renders conversations with one model's templates."""

    def __init__(
        self,
        renderer: TemplateRenderer,
        templates: Mapping[str, str],
        *,
        bos_token: str,
        eos_token: str,
        origin: TemplateOrigin = _MODELS_OWN,
    ) -> None:
        self._origin = origin
        self._broken: dict[str, TemplateError] = {}
        self._renderer = renderer
        self._templates = templates
        self._traits = {source: TemplateTraits.of(source) for source in templates.values()}
        self._bos_token = bos_token
        self._eos_token = eos_token

    async def check(self) -> None:
        """Find out, and log, which templates cannot be used; chats with them are told why."""
        self._broken = await broken_templates(self._renderer, self._templates, self._origin)

    def template(self, *, with_tools: bool = False) -> str | None:
        """The source in force: with tools the one named "tool_use", where there is one."""
        default = self._templates.get(DEFAULT)
        return self._templates.get(TOOL_USE, default) if with_tools else default

    def traits(self, *, with_tools: bool) -> TemplateTraits:
        """Those of the template in force."""
        return self._traits.get(self.template(with_tools=with_tools) or "", TemplateTraits())

    async def prompt(self, messages: Sequence[Message], options: TemplateOptions = _PLAIN) -> str:
        """The prompt that asks for the next turn, or leaves the last one open.

        Raises:
            TemplateError: no template, or it refuses this conversation.
            ValidationError: the options contradict each other or the messages.
        """
        continues = options.continues(messages)
        template = self.template(with_tools=bool(options.tools))
        if template is None:
            raise TemplateError(_NO_TEMPLATE, remedy=_REMEDY)
        if (broken := self._broken.get(template)) is not None:
            raise TemplateError(broken.message, remedy=broken.remedy)
        if not continues:
            opens = options.add_generation_prompt is not False
            return await self._render(template, messages, options, opens=opens)
        # Where the last turn ends in the prompt is known by a mark that no text holds.
        mark = secrets.token_hex(16)
        last = {**messages[-1], "content": f"{messages[-1].get('content') or ''}{mark}"}
        text = await self._render(template, [*messages[:-1], last], options, opens=False)
        prompt, found, _ = text.rpartition(mark)
        if not found:
            raise TemplateError(
                "the chat template leaves the last turn out, so it cannot be continued",
                remedy="end the conversation with a turn of the user",
            )
        return prompt

    async def _render(
        self,
        template: str,
        messages: Sequence[Message],
        options: TemplateOptions,
        *,
        opens: bool,
    ) -> str:
        return await self._renderer.render(
            template,
            {
                **options.variables,
                "messages": messages,
                "bos_token": self._bos_token,
                "eos_token": self._eos_token,
                "add_generation_prompt": opens,
                "tools": options.tools or None,
                "documents": options.documents or None,
            },
        )


def _is_unfinished(message: Message) -> bool:
    """Whether it is the assistant's own text; a turn that called tools is over."""
    return message.get("role") == "assistant" and not message.get("tool_calls")
