"""`ToolParser`: how one family of models writes tool calls, read from text as it streams.

Plugins add families by the hook `backplane_register_tool_parsers`. Text in, text out: a parser
knows nothing of tokens, HTTP or any dialect's JSON.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from backplane_core.messages import Grammar


class ToolFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call. `parameters` is the JSON schema of its arguments object."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """News of call number `index` of a message.

    Attributes:
        name: the function's name, whole, in the call's first delta and in no other.
        arguments: the next piece of the arguments' JSON text. The pieces of a call, joined, are
            one JSON object; where the answer was cut off or stopped being JSON, they are the
            beginning of one and never a whole one.
    """

    index: int
    name: str | None = None
    arguments: str = ""


class ParsedText(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece of text turned out to be: words for the user, and news of calls, in order."""

    content: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class ToolParser(ABC):
    """Reads one answer. However its text is cut into pieces, the joined result is the same.

    No mark is ever content: text that may turn out to be one is held back until it is certain.
    Text that only looked like a call (no JSON, no such function) is content, without its marks.
    `backplane_core.testing.tool_parsers` checks all of this.

    Attributes:
        name: what `--tool-call-parser` takes; lower case.
        special_literals: pieces of the markup that are special tokens in some vocabularies; the
            server has them decoded into the text instead of left out.
        instruction: how to call, as said to a model whose chat template says nothing of tools.
    """

    name: ClassVar[str]
    special_literals: ClassVar[tuple[str, ...]] = ()
    instruction: ClassVar[str] = ""

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        self.functions = {function.name: function for function in functions}

    @classmethod
    @abstractmethod
    def matches(cls, template: str) -> bool:
        """Whether a chat template is one of this family's, judged by its markup."""

    @abstractmethod
    def push(self, text: str) -> ParsedText:
        """Take the next piece of the answer."""

    @abstractmethod
    def finish(self) -> ParsedText:
        """No more text comes: what was held back is a call, or content after all."""

    @classmethod
    @abstractmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """The grammar of an answer that is nothing but calls to `functions`: one, or several.

        Args:
            functions: those that may be called.
            parallel: whether there may be more than one call.
            special_tokens: those of `cls.special_literals` that are special tokens of the model
                at hand, with their ids: text cannot spell them, so a Lark grammar names them as
                `<[id]>`.

        Raises:
            ToolError: the family has no grammar for one of the functions.
        """
