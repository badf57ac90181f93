"""One generated sequence: token deltas in, tokens with the text that may be shown out.

Joins detokenizer and stop matcher. Knows nothing of dialects, JSON or the network.
"""

from collections import deque
from enum import Enum
from typing import Final

import msgspec
from backplane_core.messages import SequenceDelta, SequenceTiming

from backplane_server.text.detokenizer import IncrementalDetokenizer, TokenTable
from backplane_server.text.stop_matcher import StopMatcher


class Finish(Enum):
    """Why a sequence ended, before a dialect names it."""

    LENGTH = "length"
    EOS = "eos"
    STOP_TOKEN = "stop_token"  # noqa: S105 - the name of a reason
    STOP_STRING = "stop_string"
    CANCELLED = "cancelled"


# Made for every token of every stream: structs are, in a third of a data class's time, and hold
# no cycles, so the collector need not look for any.
class TokenOut(msgspec.Struct, gc=False):
    """A token and its share of the visible text.

    Attributes:
        text: what this token adds to the visible text; empty inside a character.
        silent: special, or the token that ended the sequence: it never has visible text.
        top_logprobs: `(token id, logprob)`, best first, where asked for.
    """

    token_id: int
    text: str
    silent: bool
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] | None = None


class ChoiceEvent(msgspec.Struct, gc=False):
    """News of one sequence. `finish` is set on the last one.

    Attributes:
        tail: visible text at the very end that no token completes: U+FFFD where the sequence
            ended inside a character.
    """

    index: int
    tokens: list[TokenOut] = []
    tail: str = ""
    finish: Finish | None = None


class ChoiceDecoder:
    """Decodes the deltas of one sequence.

    Args:
        table: the model's vocabulary.
        index: which of the request's sequences.
        stops: stop strings.
        keep_stop: whether a stop string stays in the text. If not, tokens are held back while
            they may be part of one, and a stop token's own text is not shown either.
        shown_special_ids: special tokens whose literals are part of the visible text.
        length_at: at this many tokens the end is `LENGTH`, whatever else it is: TGI's order.

    Attributes:
        num_tokens: tokens up to the one that ended the sequence, that one included.
        finish: why it ended; None while it runs.
        timing: from the first delta that has it.
    """

    def __init__(
        self,
        table: TokenTable,
        index: int,
        stops: tuple[str, ...],
        *,
        keep_stop: bool,
        shown_special_ids: frozenset[int] = frozenset(),
        length_at: int | None = None,
    ) -> None:
        self.index: Final = index
        self.num_tokens = 0
        self.finish: Finish | None = None
        self.timing: SequenceTiming | None = None
        self._table = table
        self._keep_stop = keep_stop
        self._silent_ids = table.silent_ids(shown_special_ids)
        self._length_at = length_at
        self._detokenizer = IncrementalDetokenizer(table, shown_special_ids)
        self._matcher = StopMatcher(stops, keep=keep_stop)
        self._has_stops = bool(stops)
        self._num_visible = 0
        self._held: deque[TokenOut] = deque()
        self._held_start = 0  # where the first held token's text begins in the whole text
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All visible text so far."""
        return "".join(self._pieces)

    def push(self, delta: SequenceDelta) -> ChoiceEvent:
        """Take a delta; what lies past a stop string is neither returned nor counted."""
        if self.finish is not None:
            return ChoiceEvent(self.index)
        if delta.timing is not None:
            self.timing = delta.timing
        if len(delta.token_ids) == 1 and delta.finish_reason is None and not self._has_stops:
            # As nearly all are: nothing to hide, nothing to hold back.
            token = self._token(delta, 0, hidden=False)
            self.num_tokens += 1
            self._pieces.append(token.text)
            return ChoiceEvent(self.index, [token])
        event = ChoiceEvent(self.index)
        for position in range(len(delta.token_ids)):
            hidden = self._is_hidden(delta, position)
            self._push_token(event, self._token(delta, position, hidden=hidden))
            if self.finish is not None:
                break
        if self.finish is None and delta.finish_reason is not None:
            self.finish = self._end(Finish(delta.finish_reason))
            self._release(event, self._matcher.finish().num_visible)
            event.tail = self._detokenizer.finish()
        event.finish = self.finish
        self._pieces.extend(token.text for token in event.tokens)
        self._pieces.append(event.tail)
        return event

    def _is_hidden(self, delta: SequenceDelta, position: int) -> bool:
        """Whether a token is the one that ended the sequence and has no part in its text."""
        return position == len(delta.token_ids) - 1 and (
            delta.finish_reason == "eos"
            or (delta.finish_reason == "stop_token" and not self._keep_stop)
        )

    def _token(self, delta: SequenceDelta, position: int, *, hidden: bool) -> TokenOut:
        token_id = delta.token_ids[position]
        return TokenOut(
            token_id,
            "" if hidden else self._detokenizer.push(token_id),
            hidden or token_id in self._silent_ids,
            delta.logprobs[position] if delta.logprobs else None,
            delta.top_logprobs[position] if delta.top_logprobs else None,
        )

    def _push_token(self, event: ChoiceEvent, token: TokenOut) -> None:
        self.num_tokens += 1
        if not self._has_stops:  # nothing is held back
            event.tokens.append(token)
            return
        self._held.append(token)
        if token.text:
            step = self._matcher.push(token.text)
            self._num_visible = step.num_visible
        self._release(event, self._num_visible)
        if self._matcher.matched:
            self._cut(event)

    def _release(self, event: ChoiceEvent, num_visible: int) -> None:
        """Move held tokens whose text is wholly visible to the event."""
        while self._held:
            end = self._held_start + len(self._held[0].text)
            if end > num_visible:
                return
            event.tokens.append(self._held.popleft())
            self._held_start = end

    def _cut(self, event: ChoiceEvent) -> None:
        """A stop string ends the visible text: of the next token its part before that stays."""
        self.finish = self._end(Finish.STOP_STRING)
        if self._held and self._num_visible > self._held_start:
            token = self._held.popleft()
            token.text = token.text[: self._num_visible - self._held_start]
            event.tokens.append(token)
        self._held.clear()

    def _end(self, reason: Finish) -> Finish:
        is_told_as_length = reason is not Finish.CANCELLED and self.num_tokens == self._length_at
        return Finish.LENGTH if is_told_as_length else reason
