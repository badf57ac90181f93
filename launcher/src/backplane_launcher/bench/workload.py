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
class Entry:
    """One of a file: what its user says turn by turn, and how long answers are, where it says."""

    says: tuple[str, ...]
    system: str = ""
    num_output: int | None = None


class ReadWorkload:
    """Prompts of a file, in an order drawn from the seed; in another one once all were used."""

    def __init__(
        self,
        entries: Sequence[Entry],
        output_lengths: Lengths,
        *,
        seed: int,
        max_turns: int,
        is_chat: bool,
    ) -> None:
        self._entries = entries
        self._output_lengths = output_lengths
        self._seed = seed
        self._max_turns = max_turns
        self._is_chat = is_chat
        self._orders: dict[int, list[int]] = {}

    def conversation(self, number: int) -> Conversation:
        """The conversation of this number."""
        size = len(self._entries)
        round_, place = divmod(number, size)
        if round_ not in self._orders:
            random = Random(f"{self._seed}:order:{round_}")  # noqa: S311 - no secret
            self._orders = {round_: random.sample(range(size), size)}
        entry = self._entries[self._orders[round_][place]]
        random = Random(f"{self._seed}:lengths:{number}")  # noqa: S311 - no secret
        says = entry.says[: self._max_turns]
        outputs = [entry.num_output or self._output_lengths.draw(random) for _ in says]
        return Dialogue(says, outputs, is_chat=self._is_chat, system=entry.system)


class Dialogue:
    """A conversation: each request holds all that was said, the answers as they came.

    Of token ids there is one turn: answers come as text.
    """

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

    def ask(self) -> Ask | None:
        """The next request; None when all is said."""
        if self._turn == len(self._says):
            return None
        said = self._says[self._turn]
        num_output = self._outputs[self._turn]
        self._turn += 1
        if isinstance(said, list):
            return Ask(prompt=said, num_output=num_output)
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
        else:
            self._text += f"{reply.text}\n"
