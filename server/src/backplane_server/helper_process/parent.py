"""The server's end of a helper process: a time limit, and a new process after a kill.

One question at a time.
"""

import asyncio
import contextlib
import itertools
import sys
from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from backplane_core.errors import BackplaneError, OverloadedError, ProtocolError, UnavailableError
from backplane_core.wire import FrameDecoder, encode, read_messages

from backplane_server.helper_process.messages import Answer, Question

_START_LIMIT_S: Final = 30.0
_RETRY_AFTER_S: Final = 1.0

QuestionT = TypeVar("QuestionT", bound=Question)
AnswerT = TypeVar("AnswerT", bound=Answer)


class HelperProcess(ABC, Generic[QuestionT, AnswerT]):
    """A module of ours (`python -m`) in a process of its own, asked over its pipes.

    A question that takes longer than `time_limit_s` is killed with its process; the next one
    gets a new process. Whatever else goes wrong between a question and its answer ends the
    process too: an answer that stays in the pipe would be the next question's. A process that
    goes away by itself has the same question asked of a new one, once.

    Who finds it busy for `wait_limit_s` is refused; None waits for ever.
    """

    def __init__(
        self,
        module: str,
        name: str,
        answer_type: type[AnswerT],
        *,
        time_limit_s: float,
        wait_limit_s: float | None = None,
    ) -> None:
        self._module = module
        self._name = name
        self._answer_type = answer_type
        self._time_limit_s = time_limit_s
        self._wait_limit_s = wait_limit_s
        self._lock = asyncio.Lock()
        self._ids = itertools.count()
        self._turn: asyncio.Task[AnswerT] | None = None
        self._closed = False
        self._process: asyncio.subprocess.Process | None = None
        self._frames: FrameDecoder[AnswerT] = FrameDecoder(answer_type)

    @abstractmethod
    def _hello(self, question_id: int) -> QuestionT:
        """A question that is answered at once, by which a new process shows that it works."""

    @abstractmethod
    def _too_slow(self) -> BackplaneError:
        """The error of a question that ran into the time limit."""

    def _gone_twice(self) -> BackplaneError:
        """The error of a question under which two processes went away."""
        return UnavailableError(
            f"the {self._name} was killed twice",
            remedy="try again; if it lasts, see whether the machine runs out of memory",
            retry_after_s=_RETRY_AFTER_S,
        )

    async def start(self) -> None:
        """Start the process now, so that the first question does not wait for it."""
        # A question that came first may be starting it just now, which can take long.
        await self._take_turn(self._hello(next(self._ids)), wait_limit_s=None)

    async def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
        async with self._lock:
            await self._kill()

    async def _ask_in_turn(self, question: QuestionT) -> AnswerT:
        """Ask, if nobody else does for longer than one waits.

        Raises:
            OverloadedError: others were asking for as long as one waits.
        """
        return await self._take_turn(question, wait_limit_s=self._wait_limit_s)

    async def _take_turn(self, question: QuestionT, *, wait_limit_s: float | None) -> AnswerT:
        """Ask when nobody else does. A caller that leaves meanwhile leaves the answer to be read.

        So a departure neither hands its answer to another nor costs the next one a new process.

        Raises:
            OverloadedError: others were asking for as long as one waits.
        """
        try:
            async with asyncio.timeout(wait_limit_s):
                await self._lock.acquire()
        except TimeoutError:
            raise OverloadedError(
                f"too many requests wait for the {self._name}", retry_after_s=wait_limit_s
            ) from None
        if self._closed:
            self._lock.release()
            raise UnavailableError("the server is shutting down")
        self._turn = asyncio.create_task(self._answer(question))
        self._turn.add_done_callback(self._end_turn)
        return await asyncio.shield(self._turn)

    def _end_turn(self, _: asyncio.Task[AnswerT]) -> None:
        self._turn = None
        self._lock.release()

    async def _answer(self, question: QuestionT) -> AnswerT:
        try:
            try:
                return await self._answer_once(question)
            except OSError:
                # It was killed from outside or crashed, which need not happen again.
                await self._kill()
                return await self._answer_once(question)
        except OSError as error:
            await self._kill()
            raise self._gone_twice() from error
        except BaseException:
            await self._kill()
            raise

    async def _answer_once(self, question: QuestionT) -> AnswerT:
        """Ask within the time limit.

        Raises:
            OSError: the process went away under the question; what it ran out of, it would tell.
            BackplaneError: the time limit.
            UnavailableError: no process starts.
        """
        process = await self._ensure_started()
        try:
            async with asyncio.timeout(self._time_limit_s):
                return await self._ask(process, question)
        except TimeoutError:
            raise self._too_slow() from None

    async def _ensure_started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._frames = FrameDecoder(self._answer_type)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder the server was started in
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(_START_LIMIT_S):
                await self._ask(self._process, self._hello(next(self._ids)))
        except OSError as error:  # a TimeoutError is one
            raise UnavailableError(
                f"the {self._name} does not start",
                remedy="try again; if it lasts, see whether the machine has memory and processes",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        return self._process

    async def _ask(self, process: asyncio.subprocess.Process, question: QuestionT) -> AnswerT:
        """One question, one answer.

        Raises:
            OSError: the process is gone.
            ProtocolError: what it said is not the answer to this question.
        """
        if process.stdin is None or process.stdout is None:
            raise ProtocolError(f"the {self._name} has no pipes")
        process.stdin.write(encode(question))
        await process.stdin.drain()
        messages = await read_messages(process.stdout, self._frames)
        if not messages:
            raise ConnectionResetError(f"the {self._name} is gone")
        if [message.id for message in messages] != [question.id]:
            raise ProtocolError(f"the {self._name} answered another question")
        return messages[0]

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
