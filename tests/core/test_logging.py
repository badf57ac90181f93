"""Lines of a busy process are written together, none is lost, and none that matters waits."""

import asyncio
import io
import logging
import threading

import pytest
from backplane_core.process import MAY_WAIT, GatheringHandler, TextFormatter


async def soon(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


class Stream(io.StringIO):
    """Counts its writes."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text):
        self.writes.append(text)
        return super().write(text)


@pytest.fixture(name="log")
def log_fixture():
    stream = Stream()
    handler = GatheringHandler()
    handler.setStream(stream)
    log = logging.Logger("busy")  # noqa: LOG001 -- with no parent, whose handlers would write too
    log.addHandler(handler)
    return log, stream, handler


async def test_lines_of_a_moment_are_written_together(log):
    logger, stream, _ = log
    for number in range(5):
        logger.info("line %d", number, extra=MAY_WAIT)
    assert stream.writes == []
    await soon(lambda: stream.writes)
    assert stream.writes == ["line 0\nline 1\nline 2\nline 3\nline 4\n"]
    logger.info("later", extra=MAY_WAIT)
    await soon(lambda: len(stream.writes) == 2)
    assert stream.writes[1] == "later\n"


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
async def test_what_else_is_said_waits_for_nothing_and_keeps_its_place(log, level):
    logger, stream, _ = log
    logger.info("first", extra=MAY_WAIT)
    logger.log(level, "second")
    assert stream.writes == ["first\nsecond\n"]


async def test_another_thread_s_line_takes_along_what_waits(log):
    logger, stream, _ = log
    logger.info("first", extra=MAY_WAIT)
    thread = threading.Thread(target=logger.info, args=("second",), kwargs={"extra": MAY_WAIT})
    thread.start()
    thread.join()
    assert stream.writes == ["first\nsecond\n"]


def test_outside_of_a_loop_each_line_is_written(log):
    logger, stream, _ = log
    logger.info("first", extra=MAY_WAIT)
    logger.info("second", extra=MAY_WAIT)
    assert stream.writes == ["first\n", "second\n"]


def test_what_a_loop_left_is_written_at_the_end_and_by_the_next_loop(log):
    logger, stream, handler = log

    async def say(text):
        logger.info(text, extra=MAY_WAIT)

    asyncio.run(say("one"))
    assert stream.writes == []
    handler.flush()
    assert stream.writes == ["one\n"]

    async def say_and_wait():
        logger.info("two", extra=MAY_WAIT)
        await soon(lambda: len(stream.writes) == 2)

    asyncio.run(say_and_wait())
    assert stream.writes[1] == "two\n"


async def test_a_line_that_cannot_be_made_is_told_and_costs_no_other(log, capsys):
    logger, stream, handler = log
    logger.info("good", extra=MAY_WAIT)
    logger.info("%d", "no number", extra=MAY_WAIT)
    handler.flush()
    assert stream.writes == ["good\n"]
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize("created", [0.0, 1e9 + 0.9999, 1.7e9 + 0.5])
def test_the_time_is_written_as_logging_writes_it(created):
    layout = "%(asctime)s %(message)s"
    ours, theirs = TextFormatter(layout), logging.Formatter(layout)
    for second in (created, created, created + 1, created - 3600):
        record = logging.makeLogRecord({"msg": "text", "created": second, "msecs": 7.0})
        assert ours.format(record) == theirs.format(record)
