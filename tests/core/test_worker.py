"""The worker process over its real socket, through the asyncio client."""

import asyncio
import signal
import socket
import struct
import time

import msgspec
import pytest
from backplane_core.errors import (
    DeadlineExceededError,
    GenerationError,
    OverloadedError,
    UnavailableError,
    UnsupportedError,
    ValidationError,
    WorkerDiedError,
)
from backplane_core.messages import (
    FromWorker,
    Hello,
    MediaSegment,
    Rejected,
    Submit,
)
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_core.testing.blocking_channel import BlockingChannel
from backplane_core.version import PROTOCOL
from backplane_core.wire import LENGTH, MAX_FRAME_BYTES, encode

from tests.core.worker_process import (
    connect,
    request_of,
    stats_until,
    tokens_of,
    worker_process,
)


@pytest.fixture(scope="module")
def fast():
    with worker_process() as worker:
        yield worker.socket_path


@pytest.fixture(scope="module")
def slow():
    """20 ms a step, two sequences at a time, four in all."""
    options = {"step_seconds": 0.02, "max_sequences": 2, "max_concurrent_requests": 4}
    with worker_process(**options) as worker:
        yield worker.socket_path


async def test_a_request_is_answered_with_exactly_its_tokens(fast):
    connection = await connect(fast)
    tokens = await tokens_of(await connection.submit(request_of(connection, max_new_tokens=50)))
    assert len(tokens[0]) == 50
    assert connection.outstanding_tokens == 0
    await connection.close()


async def test_streams_of_several_servers_do_not_mix(fast):
    connections = [await connect(fast, f"s{n}") for n in range(4)]
    prompts = [list(f"prompt number {n}".encode()) for n in range(40)]
    lone = [
        (await tokens_of(await connections[0].submit(request_of(connections[0], prompt))))[0]
        for prompt in prompts
    ]

    async def one(n: int) -> list[int]:
        connection = connections[n % 4]
        return (await tokens_of(await connection.submit(request_of(connection, prompts[n]))))[0]

    assert await asyncio.gather(*(one(n) for n in range(40))) == lone
    assert len({tuple(tokens) for tokens in lone}) > 1
    for connection in connections:
        await connection.close()


async def test_the_worker_admits_up_to_its_limit_over_all_servers(slow):
    first, second = await connect(slow, "s0"), await connect(slow, "s1")
    streams = [await first.submit(request_of(first, max_new_tokens=100)) for _ in range(4)]
    with pytest.raises(OverloadedError) as refusal:
        await second.submit(request_of(second))
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1.0
    streams[0].cancel()
    await first.stats()  # the cancel has been heard: connections are not read in any order
    accepted = await second.submit(request_of(second, max_new_tokens=1))
    for stream in streams:
        stream.cancel()
    assert len((await tokens_of(accepted))[0]) == 1
    await first.close()
    await second.close()


async def test_what_can_never_fit_is_refused_for_good(slow):
    connection = await connect(slow)
    with pytest.raises(ValidationError, match="--max-concurrent-requests") as refusal:
        await connection.submit(request_of(connection, num_sequences=5))
    assert refusal.value.parameter == "num_sequences"
    await connection.close()


async def test_a_server_that_leaves_frees_what_it_held(slow):
    leaving, watching = await connect(slow, "s0"), await connect(slow, "s1")
    for _ in range(3):
        await leaving.submit(request_of(leaving, max_new_tokens=200))
    await stats_until(watching, lambda stats: stats.running == 2)
    await leaving.close()
    stats = await stats_until(watching, lambda stats: stats.running + stats.waiting == 0)
    assert stats.used_tokens == 0
    await watching.close()


async def test_cancel_ends_the_stream_and_drops_late_tokens(slow):
    connection = await connect(slow)
    stream = await connection.submit(request_of(connection, max_new_tokens=500))
    await anext(stream)
    stream.cancel()
    stream.cancel()
    assert stream.finished
    await tokens_of(stream)  # what had come before
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stats_until(connection, lambda stats: stats.running == 0)
    assert connection.outstanding_tokens == 0
    await connection.close()


async def test_a_deadline_ends_the_request_with_a_typed_error(slow):
    connection = await connect(slow)
    request = request_of(connection, max_new_tokens=500, deadline=time.time() + 0.1)
    with pytest.raises(DeadlineExceededError):
        await tokens_of(await connection.submit(request))
    await stats_until(connection, lambda stats: stats.running == 0)
    await connection.close()


REFUSALS = {
    "empty prompt": ({"prompt": []}, ValidationError, "prompt"),
    "id outside the vocabulary": ({"prompt": [10**6]}, ValidationError, "prompt"),
    "negative id": ({"prompt": [-1]}, ValidationError, "prompt"),
    "no new tokens": ({"max_new_tokens": 0}, ValidationError, "max_new_tokens"),
    "too many tokens": ({"max_new_tokens": 10**9}, ValidationError, "max_new_tokens"),
    "NaN": ({"sampling": SamplingParams(temperature=float("nan"))}, ValidationError, "temperature"),
    "top_p": ({"sampling": SamplingParams(top_p=1.5)}, ValidationError, "top_p"),
    "top_k": ({"sampling": SamplingParams(top_k=-1)}, ValidationError, "top_k"),
    "seed": ({"sampling": SamplingParams(seed=-1)}, ValidationError, "seed"),
    "bias": ({"sampling": SamplingParams(logit_bias={10**6: 1.0})}, ValidationError, "logit_bias"),
    "no sequences": ({"num_sequences": 0}, ValidationError, "num_sequences"),
    "logprobs": ({"top_logprobs": 10**6}, UnsupportedError, "top_logprobs"),
    "watermark": (
        {"sampling": SamplingParams(watermark=Watermark(gamma=1.0))},
        ValidationError,
        "watermark",
    ),
    "embed": ({"kind": "embed"}, UnsupportedError, "kind"),
    "stop id": (
        {"stopping": StoppingParams(max_new_tokens=1, stop_token_ids=(10**6,))},
        ValidationError,
        "stop_token_ids",
    ),
    "min over max": (
        {"stopping": StoppingParams(max_new_tokens=1, min_new_tokens=2)},
        ValidationError,
        "min_new_tokens",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_wrong_requests_are_refused_by_name(fast, case):
    fields, error_class, parameter = REFUSALS[case]
    connection = await connect(fast)
    with pytest.raises(error_class) as refusal:
        await connection.submit(request_of(connection, **fields))
    assert refusal.value.parameter == parameter
    await connection.close()


async def test_media_outside_the_capabilities_is_refused(fast):
    connection = await connect(fast)
    segment = MediaSegment(media_id="m", modality="image", content_hash=b"0" * 32)
    request = msgspec.structs.replace(request_of(connection), prompt=[segment])
    with pytest.raises(UnsupportedError, match="image"):
        await connection.submit(request)
    await connection.close()


async def test_another_servers_request_id_is_refused(fast):
    connection = await connect(fast, "s0")
    request = msgspec.structs.replace(request_of(connection), request_id="s1-7")
    with pytest.raises(ValidationError, match="s1-7"):
        await connection.submit(request)
    await connection.close()


async def test_tokenize_and_vocabulary_agree(fast):
    connection = await connect(fast)
    texts = ["plain", "naïve 東京 🦊", ""]
    encoded = await connection.tokenize(texts, add_special=False)
    table = connection.info.vocabulary.tokens
    assert [b"".join(table[i] for i in ids).decode() for ids in encoded] == texts
    await connection.close()


async def test_drain_refuses_the_new_and_finishes_the_old():
    with worker_process(step_seconds=0.01) as worker:
        connection = await connect(worker.socket_path)
        stream = await connection.submit(request_of(connection, max_new_tokens=30))
        drained = asyncio.create_task(connection.drain())
        await asyncio.sleep(0.05)
        with pytest.raises(UnavailableError):
            await connection.submit(request_of(connection))
        assert len((await tokens_of(stream))[0]) == 30
        await asyncio.wait_for(drained, 2)
        await connection.close()


async def test_a_killed_worker_ends_every_stream_at_once():
    with worker_process(step_seconds=0.02) as worker:
        connection = await connect(worker.socket_path)
        streams = [
            await connection.submit(request_of(connection, max_new_tokens=500)) for _ in range(8)
        ]
        await anext(streams[0])
        killed = time.monotonic()
        worker.process.send_signal(signal.SIGKILL)
        for stream in streams:
            with pytest.raises(WorkerDiedError):
                await tokens_of(stream)
        assert time.monotonic() - killed < 1.0
        with pytest.raises(WorkerDiedError):
            await connection.submit(request_of(connection))
        with pytest.raises(UnavailableError):
            await connect(worker.socket_path)


async def test_one_request_s_error_ends_that_request_alone():
    with worker_process(fail_on="boom") as worker:
        connection = await connect(worker.socket_path)
        bad = await connection.submit(request_of(connection, b"boom", max_new_tokens=20))
        good = await connection.submit(request_of(connection, max_new_tokens=20))
        with pytest.raises(GenerationError):
            await tokens_of(bad)
        assert len((await tokens_of(good))[0]) == 20
        await connection.close()


def test_a_server_of_another_major_version_is_refused(fast):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(fast)
        channel: BlockingChannel[FromWorker] = BlockingChannel(sock, FromWorker)
        channel.send(Hello(protocol=(PROTOCOL.major + 1, 0), server_id="s9"))
        answer = channel.receive(timeout=5)
        assert isinstance(answer, Rejected)
        assert answer.error.code == "protocol"
        assert channel.receive(timeout=5) is None


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        LENGTH.pack(3) + b"\xff\xff\xff",
        LENGTH.pack(1) + b"\x80",
        encode(Hello(protocol=PROTOCOL, server_id="s9"))[:-1] + b"\xc1",
        encode(Submit(request_id="s9-0", prompt=[], stopping=StoppingParams(max_new_tokens=1))),
    ],
    ids=["too large", "not msgpack", "no tag", "malformed", "before hello"],
)
async def test_garbage_closes_its_connection_and_no_other(fast, garbage):
    healthy = await connect(fast)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(fast)
        sock.sendall(garbage)
        channel: BlockingChannel[FromWorker] = BlockingChannel(sock, FromWorker)
        assert isinstance(await asyncio.to_thread(channel.receive, 5), Rejected)
        assert await asyncio.to_thread(channel.receive, 5) is None
    tokens = await tokens_of(await healthy.submit(request_of(healthy)))
    assert len(tokens[0]) == 8
    await healthy.close()
