"""A generation over a stream that the test writes: ends, cancellations, errors, merging."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from backplane_core.errors import DeadlineExceededError, OutOfMemoryError
from backplane_core.messages import SequenceDelta, SequenceTiming
from backplane_core.sampling import SamplingParams
from backplane_core.vocabulary import Vocabulary
from backplane_server.errors import IncompleteGenerationError
from backplane_server.services.generation import Generation, GenerationTimes
from backplane_server.services.generation_group import GenerationGroup
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.text.choice_decoder import Finish
from backplane_server.text.detokenizer import TokenTable

TABLE = TokenTable(Vocabulary(tokens=[bytes([value]) for value in range(256)]))


class Script:
    """A worker's stream: items in turn, each after a pause; an exception ends it."""

    def __init__(self, *items, pause=0.0):
        self._items = list(items)
        self._pause = pause
        self._listener = None
        self._timer = None
        self.cancelled = []

    def listen(self, listener):
        self._listener = listener
        if self._timer is None:
            self._play_on()

    def _play_on(self):
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._play)

    def _play(self):
        if self._listener is None:
            self._timer = None
            return
        self._play_on()
        if not self._items:
            self._end(None)
        elif isinstance(item := self._items.pop(0), Exception):
            self._end(item)
        else:
            self._listener.take(item)

    def _end(self, error):
        self._timer.cancel()
        self._listener.end(error)

    def cancel(self, index=None):
        self.cancelled.append(index)

    def abandon(self, error):
        self._items = [error]


def delta(text, index=0, finish=None, **fields):
    return SequenceDelta("r", index, list(text.encode()), finish_reason=finish, **fields)


def generation(stream, n=1, stops=(), max_new_tokens=10, **fields):
    request = GenerationRequest(
        prompt="p",
        add_special=True,
        sampling=SamplingParams(),
        keep_stop=False,
        num_sequences=n,
        stops=stops,
    )
    return Generation(
        request,
        SimpleNamespace(table=TABLE),
        stream,
        prompt_token_ids=[1],
        max_new_tokens=max_new_tokens,
        seed=None,
        times=GenerationTimes(time.monotonic(), time.monotonic()),
        **fields,
    )


async def texts_of(made):
    await GenerationGroup([made]).run(lambda _number, _event: None)
    return [choice.text for choice in made.choices]


async def test_sequences_end_one_by_one():
    stream = Script(delta("a", 1), delta("b", 0, "length"), delta("c", 1, "eos"))
    made = generation(stream, n=2)
    assert await texts_of(made) == ["b", "a"]
    assert [choice.finish for choice in made.choices] == [Finish.LENGTH, Finish.EOS]
    assert made.num_new_tokens == 3


async def test_a_stop_string_cancels_its_sequence_alone():
    stream = Script(delta("xSTOPy", 0), delta("late", 0), delta("z", 1, "length"))
    made = generation(stream, n=2, stops=("STOP",))
    assert await texts_of(made) == ["x", "z"]
    assert stream.cancelled == [0]
    assert made.choices[0].num_tokens == 5


@pytest.mark.parametrize("items", [[delta("a")], [delta("a"), delta("", finish="cancelled")]])
async def test_a_stream_that_stops_short_is_an_error(items):
    with pytest.raises(IncompleteGenerationError):
        await texts_of(generation(Script(*items)))


async def test_an_end_without_a_token_is_an_end():
    assert await texts_of(generation(Script(delta("a"), delta("", finish="length")))) == ["a"]


async def test_errors_come_after_what_came_before():
    made = generation(Script(delta("a"), OutOfMemoryError("no room")))
    with pytest.raises(OutOfMemoryError):
        await texts_of(made)
    assert made.choices[0].text == "a"


async def test_the_workers_times_are_taken():
    timing = SequenceTiming(queue_s=0.5, prefill_s=0.1, num_prompt_tokens=1, num_cached_tokens=0)
    made = generation(Script(delta("a", timing=timing), delta("b", finish="length")))
    await texts_of(made)
    times = made.times
    assert (times.queue_s, times.prefill_s, times.num_cached_tokens) == (0.5, 0.1, 0)
    assert times.submitted <= times.first_token <= times.finished


async def test_time_between_tokens_is_taken_for_each_sequence():
    pause = 0.02
    items = [delta("a", 0), delta("b", 1), delta("cde", 0), delta("f", 1, "eos")]
    made = generation(Script(*items, delta("", 0, "length"), pause=pause), n=2)
    await texts_of(made)
    gaps = list(made.times.token_gaps_s)
    # Three came together two pauses after the first; the fourth two pauses after its own first.
    assert len(gaps) == 4
    assert gaps[0] == gaps[1] == gaps[2] == pytest.approx(gaps[3] / 3, rel=0.9)
    assert gaps[3] >= 2 * pause
    assert sum(gaps) <= 2 * (made.times.finished - made.times.first_token)


async def test_what_is_told_is_what_is_counted():
    made = generation(Script(delta("abc", 0, "length"), delta("d", 1, "eos")), n=2)
    await texts_of(made)
    assert made.num_new_tokens == 4
    made.tell_only(1)
    assert made.num_new_tokens == 1
    made.tell_only()
    assert made.num_new_tokens == 0


async def test_a_request_that_takes_too_long_is_ended_here():
    made = generation(Script(*(delta("a") for _ in range(500)), pause=0.01), timeout_s=0.1)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
        await texts_of(made)
    assert 0.05 < time.monotonic() - begun < 5
    assert made.choices[0].text, "what came before is kept"


async def test_a_generation_that_ended_is_not_ended_again():
    made = generation(Script(delta("a", finish="length")), timeout_s=0.02)
    assert await texts_of(made) == ["a"]
    made.cancel()
    assert made._timer.cancelled()


@pytest.mark.parametrize("reason", ["eos", "stop_token", None])
async def test_strictly_as_tgi_the_last_place_is_the_length(reason):
    stops = () if reason else ("bc",)
    for limit, told in ((3, Finish.LENGTH), (4, Finish(reason or "stop_string"))):
        stream = Script(delta("abc", finish=reason or "length"))
        made = generation(stream, stops=stops, max_new_tokens=limit, length_first=True)
        await texts_of(made)
        assert made.choices[0].finish is told


async def test_merged_generations_interleave_and_all_arrive():
    slow = generation(Script(delta("a"), delta("b", finish="length"), pause=0.02))
    fast = generation(Script(delta("c"), delta("d", finish="length"), pause=0.001))
    order = []
    await GenerationGroup([slow, fast]).run(lambda number, _: order.append(number))
    assert sorted(order) == [0, 0, 1, 1]
    assert order[:2] == [1, 1]
    assert (slow.choices[0].text, fast.choices[0].text) == ("ab", "cd")


async def test_one_error_ends_the_merged():
    slow = generation(Script(delta("a"), delta("b", finish="length"), pause=0.5))
    broken = generation(Script(OutOfMemoryError("no room")))

    told = []
    group = GenerationGroup([slow, broken])
    with pytest.raises(OutOfMemoryError):
        await asyncio.wait_for(group.run(lambda number, _: told.append(number)), 0.3)
    await asyncio.sleep(0.6)
    assert told == [], "who was told of the end is told nothing more"


async def test_what_is_held_comes_later_and_in_order():
    script = Script(*(delta(letter) for letter in "abcd"), delta("e", finish="length"))
    made = generation(script)
    group, told, over = GenerationGroup([made]), [], asyncio.Event()

    def tell(_, event):
        told.extend(token.text for token in event.tokens)
        if told[-1] in "bd":
            group.hold()

    group.follow(tell, lambda error: over.set())
    for so_far in ("ab", "abcd"):
        await asyncio.sleep(0.05)
        assert "".join(told) == so_far
        assert not over.is_set()
        group.resume()
    await asyncio.wait_for(over.wait(), 1)
    assert made.choices[0].text == "abcde"


async def test_an_error_of_who_is_told_is_the_end():
    made = generation(Script(delta("a"), delta("b"), delta("c", finish="length")))

    def tell(_, event):
        if event.tokens[0].text == "b":
            raise KeyError("b")

    with pytest.raises(KeyError):
        await GenerationGroup([made]).run(tell)
    assert made.choices[0].text == "ab"
