"""`GrammarChecker`: whether a worker can follow a grammar, found out before one is asked.

In processes that can be killed: compiling takes what a client's text makes it take.
"""

import asyncio
import dataclasses
import hashlib
import math
import time
from collections import OrderedDict
from typing import Final

from backplane_core.errors import (
    BackplaneError,
    OverloadedError,
    UnavailableError,
    ValidationError,
)
from backplane_core.messages import Grammar
from backplane_core.vocabulary import Vocabulary

from backplane_server.grammars.child import Check, Checked, SpecialTokens
from backplane_server.helper_process.parent import HelperProcess

_NUM_PROCESSES: Final = 2
_TIME_LIMIT_S: Final = 3.0
_WAIT_LIMIT_S: Final = 5.0
_MAX_VERDICTS: Final = 256
_DOUBTFUL_FOR_S: Final = 30.0
_HELLO: Final = Grammar(kind="regex", source="ready")


class CheckerProcess(HelperProcess[Check, Checked]):
    """One process that compiles grammars."""

    def __init__(self, time_limit_s: float) -> None:
        super().__init__(
            "backplane_server.grammars.child",
            "grammar checker",
            Checked,
            time_limit_s=time_limit_s,
        )

    async def check(self, grammar: Grammar, special_tokens: SpecialTokens) -> Checked:
        """The verdict.

        Raises:
            ValidationError: it takes too long, or kills who tries.
            UnavailableError: no process starts.
        """
        return await self._ask_in_turn(
            Check(id=next(self._ids), grammar=grammar, special_tokens=special_tokens)
        )

    def _hello(self, question_id: int) -> Check:
        tokens = SpecialTokens(size=1, eos_token_ids=(0,), texts=((0, b"end"),))
        return Check(id=question_id, grammar=_HELLO, special_tokens=tokens)

    def _too_slow(self) -> ValidationError:
        return ValidationError(
            f"the grammar takes longer than {self._time_limit_s:g} s to compile",
            remedy="use a simpler one",
        )

    def _gone_twice(self) -> ValidationError:
        return ValidationError(
            "the grammar takes more memory to compile than it may", remedy="use a simpler one"
        )


class GrammarChecker:
    """Checks side by side, in few processes; verdicts on the last grammars are remembered.

    A check that finds no process free for `wait_limit_s` is refused, so that nobody waits for
    long behind grammars that use up their time.
    """

    def __init__(
        self,
        *,
        num_processes: int = _NUM_PROCESSES,
        time_limit_s: float = _TIME_LIMIT_S,
        wait_limit_s: float = _WAIT_LIMIT_S,
    ) -> None:
        self._processes = [CheckerProcess(time_limit_s) for _ in range(num_processes)]
        self._idle: asyncio.Queue[CheckerProcess] = asyncio.Queue()
        for process in self._processes:
            self._idle.put_nowait(process)
        self._wait_limit_s = wait_limit_s
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[_Verdict]] = {}
        self._vocabulary: Vocabulary | None = None
        self._special_tokens = SpecialTokens(size=0)
        self._closed = False

    async def start(self) -> None:
        """Start one process now; the others start when they are needed."""
        await self._processes[0].start()

    async def check(self, grammar: Grammar, parameter: str, vocabulary: Vocabulary) -> Grammar:
        """The grammar to send to a worker: the same, or Lark where it was GBNF.

        Raises:
            ValidationError: it is no grammar, matches nothing, or costs too much; names
                `parameter`.
            OverloadedError: too many are being checked.
            UnavailableError: the server is closing, or has no room for a process.
        """
        special_tokens = self._special_tokens_of(vocabulary)
        key = hashlib.sha256(f"{grammar.kind}:{grammar.source}".encode(errors="replace")).digest()
        verdict = self._verdicts.get(key)
        if verdict is None or verdict.until_s < time.monotonic():
            verdict = await self._ask(key, grammar, special_tokens)
        else:
            self._verdicts.move_to_end(key)
        if (error := verdict.error) is not None:
            raise ValidationError(
                f"`{parameter}`: {error.message}", parameter=parameter, remedy=error.remedy
            )
        return verdict.converted or grammar

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        for task in list(self._running.values()):
            task.cancel()
        for process in self._processes:
            await process.close()

    async def _ask(self, key: bytes, grammar: Grammar, special_tokens: SpecialTokens) -> "_Verdict":
        """One question for all who ask it now; it goes on when one of them leaves."""
        task = self._running.get(key)
        if task is None:
            if self._closed:
                raise UnavailableError("the server is shutting down")
            task = asyncio.create_task(self._find(grammar, special_tokens))
            self._running[key] = task
            task.add_done_callback(lambda done: self._found(key, done))
        return await asyncio.shield(task)

    def _found(self, key: bytes, task: "asyncio.Task[_Verdict]") -> None:
        del self._running[key]
        if task.cancelled() or task.exception() is not None:
            return  # told to whoever still waits; nothing was found out
        self._verdicts[key] = task.result()
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > _MAX_VERDICTS:
            self._verdicts.popitem(last=False)

    async def _find(self, grammar: Grammar, special_tokens: SpecialTokens) -> "_Verdict":
        try:
            async with asyncio.timeout(self._wait_limit_s):
                process = await self._idle.get()
        except TimeoutError:
            raise OverloadedError(
                "too many grammars wait to be checked", retry_after_s=self._wait_limit_s
            ) from None
        try:
            checked = await process.check(grammar, special_tokens)
        except ValidationError as error:
            # The machine may have been busy, or somebody else's work too large.
            return _Verdict(error, until_s=time.monotonic() + _DOUBTFUL_FOR_S)
        finally:
            self._idle.put_nowait(process)
        error = None if checked.error is None else checked.error.restore()
        return _Verdict(error, checked.converted)

    def _special_tokens_of(self, vocabulary: Vocabulary) -> SpecialTokens:
        if vocabulary is self._vocabulary:
            return self._special_tokens
        ids = sorted({*vocabulary.special_token_ids, *vocabulary.eos_token_ids})
        special_tokens = SpecialTokens(
            size=len(vocabulary.tokens),
            eos_token_ids=vocabulary.eos_token_ids,
            texts=tuple((token_id, vocabulary.tokens[token_id]) for token_id in ids),
        )
        if special_tokens != self._special_tokens:
            self._verdicts.clear()
        self._vocabulary, self._special_tokens = vocabulary, special_tokens
        return special_tokens


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """What is wrong with a grammar, or what it becomes, as far as one knows until then."""

    error: BackplaneError | None = None
    converted: Grammar | None = None
    until_s: float = math.inf
