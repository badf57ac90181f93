"""Framing and messages: whatever way bytes are cut, the same messages; garbage is typed."""

import msgspec
import pytest
from backplane_core import errors
from backplane_core.errors import BackplaneError, EngineError, ErrorInfo, ProtocolError
from backplane_core.messages import (
    Cancel,
    FromWorker,
    Hello,
    SequenceDelta,
    SequenceTiming,
    StepOutput,
    Submit,
    Tokenize,
    TokenSegment,
    ToWorker,
)
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.wire import LENGTH, FrameDecoder, encode
from hypothesis import given, settings
from hypothesis import strategies as st

MESSAGES = [
    Hello(protocol=(1, 0), server_id="s0"),
    Submit(
        request_id="s0-1",
        prompt=[TokenSegment(token_ids=[1, 2, 70000])],
        stopping=StoppingParams(max_new_tokens=5, stop_token_ids=(3,)),
        sampling=SamplingParams(temperature=0.5, logit_bias={7: -1.5}, seed=2**64 - 1),
        top_logprobs=3,
    ),
    Cancel(request_id="s0-1", index=2),
    Tokenize(request_id="s0-2", texts=["a", "é" * 500]),
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
@settings(derandomize=True)
def test_any_cut_of_the_bytes_gives_the_same_messages(cuts):
    data = b"".join(encode(message) for message in MESSAGES)
    frames: FrameDecoder[ToWorker] = FrameDecoder(ToWorker)
    received = []
    position = 0
    for cut in cuts:
        received += frames.feed(data[position : position + cut])
        position += cut
    received += frames.feed(data[position:])
    assert received == MESSAGES


@given(st.binary(max_size=200))
@settings(derandomize=True, max_examples=500)
def test_random_bytes_are_messages_or_a_protocol_error(data):
    frames: FrameDecoder[ToWorker] = FrameDecoder(ToWorker, max_bytes=150)
    try:
        frames.feed(LENGTH.pack(len(data)) + data)
    except ProtocolError:
        return
    raise AssertionError("random bytes decoded") if data else AssertionError("empty decoded")


def test_deep_nesting_is_a_protocol_error():
    body = b"\x91" * 100_000 + b"\x90"
    with pytest.raises(ProtocolError):
        FrameDecoder(ToWorker).feed(LENGTH.pack(len(body)) + body)


def test_fields_added_by_a_later_minor_are_ignored():
    raw = msgspec.msgpack.encode(
        {"type": "Cancel", "request_id": "s0-1", "a_field_of_1_7": {"x": 1}}
    )
    assert FrameDecoder(ToWorker).feed(LENGTH.pack(len(raw)) + raw) == [Cancel(request_id="s0-1")]


def test_deltas_survive_whole():
    step = StepOutput(
        deltas=[
            SequenceDelta("s0-1", 0, [5], [-0.5], [[(5, -0.5), (6, -1.5)]], None,
                          SequenceTiming(0.1, 0.2, 7, 3)),
            SequenceDelta("s0-1", 1, [], finish_reason="length"),
        ]
    )  # fmt: skip
    assert FrameDecoder(FromWorker).feed(encode(step)) == [step]


def leaves(root):
    return [root, *(leaf for child in root.__subclasses__() for leaf in leaves(child))]


CORE_ERRORS = [leaf for leaf in leaves(BackplaneError) if leaf.__module__ == errors.__name__]


@pytest.mark.parametrize("error_class", CORE_ERRORS)
def test_every_error_survives_the_wire(error_class):
    error = error_class("what happened", parameter="p", remedy="do this", retry_after_s=2.0)
    restored = ErrorInfo.of(error).restore()
    assert type(restored) is error_class
    assert vars(restored) == vars(error)
    assert error_class.__name__ in errors.__doc__


def test_a_foreign_exception_becomes_an_engine_error():
    assert type(ErrorInfo.of(KeyError("x")).restore()) is EngineError
