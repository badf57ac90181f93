"""What is asked: conversations by number, each a request or several that build on the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from backplane_launcher.bench.dialects import Ask, Message
from backplane_launcher.bench.lengths import Lengths
from backplane_launcher.bench.prompts import PromptMaker
from backplane_launcher.bench.reply import Reply


class Conversation(Protocol):
    """Requests that follow one another."""

    def ask(self) -> Ask | None:
        """The next request; None when all is said."""
        ...

    def answered(self, reply: Reply) -> None:
        """The answer to it."""
        ...


class Workload(Protocol):
    """All conversations."""

    def conversation(self, number: int) -> Conversation:
        """The conversation of this number, the same at every call."""
        ...


@dataclass(frozen=True, kw_only=True)
class MadeWorkload:
    """Prompts made up. A chat's first turn has the shared tokens, later ones only their own."""

    seed: int
    prompts: PromptMaker
    own: PromptMaker
    prompt_lengths: Lengths
    output_lengths: Lengths
    turns: int
    is_chat: bool

    def conversation(self, number: int) -> Conversation:
        """The conversation of this number."""
        random = Random(f"{self.seed}:lengths:{number}")  # noqa: S311 - no secret
        says: list[str | list[int]] = []
        outputs: list[int] = []
        for turn in range(self.turns):
            maker = self.own if turn else self.prompts
            says.append(maker.make(number * self.turns + turn, self.prompt_lengths.draw(random)))
            outputs.append(self.output_lengths.draw(random))
        return Dialogue(says, outputs, is_chat=self.is_chat)


@dataclass(frozen=True, kw_only=True)
class ReadWorkload:
    """Prompts of a file, in an order drawn from the seed; from the beginning again at its end."""

    seed: int
    entries: Sequence["Entry"]
    output_lengths: Lengths
    max_turns: int
    is_chat: bool

    def conversation(self, number: int) -> Conversation:
        """The conversation of this number."""
        round_, place = divmod(number, len(self.entries))
        order = Random(f"{self.seed}:order:{round_}").sample(  # noqa: S311 - no secret
            range(len(self.entries)), len(self.entries)
        )
        entry = self.entries[order[place]]
        random = Random(f"{self.seed}:lengths:{number}")  # noqa: S311 - no secret
        says = list(entry.says[: self.max_turns])
        outputs = [entry.num_output or self.output_lengths.draw(random) for _ in range(len(says))]
        return Dialogue(says, outputs, is_chat=self.is_chat, system=entry.system)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of a file: what its user says turn by turn, and how long answers are, where it says."""

    says: tuple[str, ...]
    system: str = ""
    num_output: int | None = None


class Dialogue:
    """A conversation: each request holds all that was said, the answers as they came."""

    def __init__(
        self,
        says: Sequence[str | list[int]],
        outputs: Sequence[int],
        *,
        is_chat: bool,
        system: str = "",
    ) -> None:
        self._says = says
        self._outputs = outputs
        self._is_chat = is_chat
        self._turn = 0
        self._messages = [Message("system", system)] if system else []
        self._text = f"{system}\n" if system else ""
        self._ids: list[int] = []

    def ask(self) -> Ask | None:
        """The next request; None when all is said."""
        if self._turn == len(self._says):
            return None
        said = self._says[self._turn]
        num_output = self._outputs[self._turn]
        self._turn += 1
        if isinstance(said, list):
            self._ids = [*self._ids, *said]
            return Ask(prompt=self._ids, num_output=num_output)
        if self._is_chat:
            self._messages = [*self._messages, Message("user", said)]
            return Ask(messages=self._messages, num_output=num_output)
        self._text += said
        return Ask(prompt=self._text, num_output=num_output)

    def answered(self, reply: Reply) -> None:
        """Take the answer into what was said; a failure ends the conversation."""
        if reply.failure:
            self._turn = len(self._says)
        elif self._is_chat:
            self._messages = [*self._messages, Message("assistant", reply.text)]
        elif self._ids:
            self._ids = [*self._ids, *reply.token_ids]
        else:
            self._text += f"{reply.text}\n"
