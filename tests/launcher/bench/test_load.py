"""When requests are begun, by a client that answers at once, and how it is shown."""

import asyncio
import os
import struct
import termios
from fcntl import ioctl
from time import perf_counter

import pytest
from backplane_launcher.bench.dialects import Ask
from backplane_launcher.bench.load import Level, Loader, Tally
from backplane_launcher.bench.progress import shown


class Once:
    """A conversation of one request."""

    asked = False

    def ask(self):
        was, self.asked = self.asked, True
        return None if was else Ask(prompt="word", num_output=1)

    def answered(self, reply):
        pass

    def conversation(self, number):
        return Once()


class Immediate:
    async def connect(self, num):
        pass

    async def send(self, ask, reply):
        reply.ended = perf_counter()


async def started(level, seed):
    loader = Loader(Immediate(), Once(), 0, seed)
    began = perf_counter()
    await loader.run(level)
    return [reply.started - began for reply in loader.tally.replies]


@pytest.mark.parametrize("level", [Level(rate=200.0, num=6), Level(concurrency=2, num=6)])
async def test_as_many_as_are_wanted(level):
    assert len(await started(level, 1)) == 6


@pytest.mark.parametrize("seed", range(4))
async def test_an_open_loop_begins_nothing_after_its_time(seed):
    # With gaps of 50 ms on the average, the one that spans the end is longer than the others.
    assert all(at < 0.11 for at in await started(Level(rate=20.0, duration_s=0.1), seed))


@pytest.mark.parametrize(
    ("level", "label"),
    [
        (Level(concurrency=1), "1 stream"),
        (Level(concurrency=4), "4 streams"),
        (Level(rate=0.5), "0.5/s"),
    ],
)
def test_names_of_levels(level, label):
    assert level.label == label


async def test_a_line_on_a_terminal_is_no_wider_than_it():
    reader, writer = os.openpty()
    ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    with os.fdopen(writer, "w") as terminal, os.fdopen(reader, "rb", buffering=0) as said:
        async with shown(terminal, "ours, round 3, 16 streams", Tally()):
            await asyncio.sleep(0.7)
        lines = said.read(4096).decode().split("\r\x1b[K")
    assert "ours, round 3, 16 streams: 0" in lines[1] or "ours, round 3, 16 streams: 1" in lines[1]
    assert all(len(line) < 30 for line in lines)
