"""The pace of a worker's messages: nothing lost, nothing out of order, what is urgent at once."""

from itertools import chain

from backplane_core.errors import ErrorInfo, GenerationError
from backplane_core.messages import Failed, SequenceDelta, SequenceTiming, StepOutput
from backplane_core.worker.pacing import TELL_EVERY_S, Pacer
from hypothesis import given
from hypothesis import strategies as st

TIMING = SequenceTiming(queue_s=0.0, prefill_s=0.0, num_prompt_tokens=1, num_cached_tokens=0)
FAILURE = Failed(request_id="s0-9", error=ErrorInfo.of(GenerationError("broken")))


def token(number, **more):
    return StepOutput(deltas=[SequenceDelta("s0-0", 0, [number], **more)])


class Told:
    """A pacer under a clock that is moved by hand, and what it told."""

    def __init__(self):
        self.now_s = 0.0
        self.outputs = []
        self.pacer = Pacer(self.outputs.append, lambda: self.now_s)

    def take(self, output, after_s=0.001):
        self.now_s += after_s
        self.pacer.take(output)

    @property
    def tokens(self):
        return [[d.token_ids[0] for d in output.deltas] for output in self.outputs]


def test_fast_steps_share_a_message():
    told = Told()
    for number in range(25):
        told.take(token(number))
    assert told.tokens == [[0], list(range(1, 11)), list(range(11, 21))]


def test_slow_steps_are_told_at_once():
    told = Told()
    steps = [token(number) for number in range(5)]
    for step in steps:
        told.take(step, after_s=1.5 * TELL_EVERY_S)
    assert told.outputs == steps


def test_first_and_last_tokens_do_not_wait():
    told = Told()
    told.take(token(0))
    told.take(token(1))
    told.take(token(2, timing=TIMING))
    told.take(token(3))
    told.take(token(4, finish_reason="length"))
    assert told.tokens == [[0], [1, 2], [3, 4]]


def test_a_failure_does_not_wait_and_comes_after_the_tokens():
    told = Told()
    told.take(token(0))
    told.take(token(1))
    told.take(StepOutput(failures=[FAILURE]))
    assert told.tokens == [[0], [1]]
    assert told.outputs[1].failures == [FAILURE]


def test_a_step_without_news_lets_nothing_wait():
    told = Told()
    told.take(token(0))
    told.take(token(1))
    told.take(StepOutput())
    assert told.tokens == [[0], [1]]


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 0.03),
            st.sampled_from(["token", "first", "last", "failure", "nothing", "flush"]),
        )
    )
)
def test_all_is_told_in_order_and_soon(steps):
    told = Told()
    expected, since_s = [], None
    for number, (after_s, kind) in enumerate(steps):
        more = {"first": {"timing": TIMING}, "last": {"finish_reason": "eos"}}.get(kind, {})
        if kind == "flush":
            told.pacer.flush()
        elif kind == "nothing":
            told.take(StepOutput(), after_s)
        elif kind == "failure":
            told.take(StepOutput(failures=[FAILURE]), after_s)
        else:
            told.take(token(number, **more), after_s)
            expected.append(number)
        so_far = list(chain.from_iterable(told.tokens))
        assert so_far == expected[: len(so_far)]
        if kind != "token":
            assert so_far == expected
        if len(so_far) == len(expected):
            since_s = None
        elif since_s is None:
            since_s = told.now_s
        else:  # what waits is told by the first step after its time
            assert told.now_s - since_s < TELL_EVERY_S
    told.pacer.flush()
    assert list(chain.from_iterable(told.tokens)) == expected
