"""A conversation to a prompt: which template, which variables, and how a last turn is continued.

Knows nothing of dialects: messages arrive as the plain mappings that templates expect.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from backplane_core.errors import ModelError, TemplateError

from backplane_server.templates.renderer import TemplateRenderer

_NO_TEMPLATE: Final = "the model has no chat template"
_REMEDY: Final = "use a plain-text route, or start with --chat-template FILE"


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _TokenizerConfig(msgspec.Struct):
    chat_template: str | list[_NamedTemplate] | None = None


def choose_template(
    templates: Mapping[str, str], *, chat_template: str | None, tokenizer_config_path: str | None
) -> str | None:
    """The template in force: the operator's, then their tokenizer config's, then the model's.

    Args:
        templates: the model's, by name; "default" is the one for chats.
        chat_template: Jinja source, or the path of a file that holds it.
        tokenizer_config_path: a `tokenizer_config.json`.

    Raises:
        ModelError: a file cannot be read, or is not what it should be.
    """
    if chat_template is not None:
        looks_like_source = "{" in chat_template or "\n" in chat_template
        return chat_template if looks_like_source else _read(chat_template)
    if tokenizer_config_path is not None:
        config = _read_config(tokenizer_config_path)
        if config is not None:
            return config
    return templates.get("default")


def _read_config(path: str) -> str | None:
    try:
        config = msgspec.json.decode(_read(path), type=_TokenizerConfig).chat_template
    except msgspec.DecodeError as error:
        raise ModelError(
            f"{path} is not a tokenizer_config.json: {error}",
            remedy="give --tokenizer-config-path a file as models on the Hub have it",
        ) from error
    if isinstance(config, list):
        return next((entry.template for entry in config if entry.name == "default"), None)
    return config


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path} is not text: it is not UTF-8 from byte {error.start} on",
            remedy="check that the path is the file that was meant",
        ) from error


class ChatPrompter:
    """Renders conversations with one model's template."""

    def __init__(
        self,
        renderer: TemplateRenderer,
        template: str | None,
        *,
        bos_token: str,
        eos_token: str,
    ) -> None:
        self._renderer = renderer
        self._template = template
        self._bos_token = bos_token
        self._eos_token = eos_token

    async def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt that asks for the next turn; a last turn of the assistant is continued.

        Raises:
            TemplateError: no template, or it refuses this conversation.
        """
        if self._template is None:
            raise TemplateError(_NO_TEMPLATE, remedy=_REMEDY)
        if not messages or not _is_unfinished(messages[-1]):
            return await self._render(self._template, messages, add_generation_prompt=True)
        # Where the last turn ends in the prompt is known by a mark that no text holds.
        mark = secrets.token_hex(16)
        last = {**messages[-1], "content": f"{messages[-1].get('content') or ''}{mark}"}
        text = await self._render(
            self._template, [*messages[:-1], last], add_generation_prompt=False
        )
        prompt, found, _ = text.rpartition(mark)
        if not found:
            raise TemplateError(
                "the chat template leaves the last turn out, so it cannot be continued",
                remedy="end the conversation with a turn of the user",
            )
        return prompt

    async def _render(
        self, template: str, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool
    ) -> str:
        return await self._renderer.render(
            template,
            {
                "messages": messages,
                "bos_token": self._bos_token,
                "eos_token": self._eos_token,
                "add_generation_prompt": add_generation_prompt,
                "tools": None,
            },
        )


def _is_unfinished(message: Mapping[str, Any]) -> bool:
    """Whether it is the assistant's own text; a turn that called tools is over."""
    return message.get("role") == "assistant" and not message.get("tool_calls")
