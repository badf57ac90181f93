"""The child's end: answers one question after the other, in little memory, until its input ends.

Has no sockets and opens no files.
"""

import os
import resource
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from backplane_core.errors import BackplaneError, ErrorInfo
from backplane_core.process import die_with_parent, leave_stopping_to_parent
from backplane_core.wire import FrameDecoder, encode

from backplane_server.helper_process.messages import Answer, Question

_MEMORY_BYTES: Final = 1 << 30
_READ_BYTES: Final = 1 << 16

QuestionT = TypeVar("QuestionT", bound=Question)


def encoded_answer(
    question: QuestionT,
    answer: Callable[[QuestionT], Answer],
    failed: Callable[[int, Exception], Answer],
) -> bytes:
    """The answer's frame. Whatever fails while it is made or encoded is an answer as well."""
    try:
        return encode(answer(question))
    except Exception as error:  # noqa: BLE001 -- what a client's text makes fail ends no process
        return encode(failed(question.id, error))


def unforeseen(error: Exception, what: str, kind: type[BackplaneError]) -> ErrorInfo:
    """What is said of a failure that nobody foresaw; of foreign exceptions, only the type."""
    if isinstance(error, MemoryError):
        return ErrorInfo.of(kind(f"{what} needs too much memory"))
    return ErrorInfo.of(kind(f"{what} failed ({type(error).__name__})"))


def limit_resources() -> None:
    """Bound what a question can take from the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(
    question_type: type[QuestionT],
    answer: Callable[[QuestionT], Answer],
    failed: Callable[[int, Exception], Answer],
) -> None:
    """Answer until standard input ends."""
    frames: FrameDecoder[QuestionT] = FrameDecoder(question_type)
    while data := os.read(sys.stdin.fileno(), _READ_BYTES):
        for question in frames.feed(data):
            reply = encoded_answer(question, answer, failed)
            while reply:
                reply = reply[os.write(sys.stdout.fileno(), reply) :]


def settle_in() -> None:
    """Die with the server, let it decide when, and be limited from here on."""
    die_with_parent()
    leave_stopping_to_parent()
    limit_resources()
