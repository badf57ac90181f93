"""What a step costs around the engine: scheduler, cache bookkeeping, and the worker's threads.

`python benchmarks/scheduler.py` runs the batching toolkit over an executor that computes nothing,
then a whole worker with one client on its socket, and prints CPU microseconds per step. One
process on one core; no model is needed.
"""

import argparse
import asyncio
import dataclasses
import gc
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    SampledTokens,
    ScheduledBatch,
    StepResult,
)
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import BackplaneError
from backplane_core.messages import (
    Accepted,
    FromWorker,
    Hello,
    ModelInfo,
    Ready,
    RunnerInfo,
    StepOutput,
    Submit,
    TokenSegment,
)
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.version import PROTOCOL
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary
from backplane_core.wire import FrameDecoder, encode
from backplane_core.worker.service import WorkerService

BLOCK_SIZE = 16
VOCABULARY_SIZE = 1000
_PLAY_SERVER = "play-server"
SERVER_ID = "bench"


class NullExecutor(Executor):
    """Computes nothing of use; notes at what CPU time of its thread `execute` began and ended.

    It reads `weights` as an engine would: without the GIL, and driving all else out of the caches.
    """

    def __init__(self, traits: ExecutorTraits, weights: bytes = b"") -> None:
        self._traits = traits
        self._weights = weights
        self.before: list[float] = []  # thread time at which `execute` was entered
        self.after: list[float] = []  # … and left

    @property
    def traits(self) -> ExecutorTraits:
        return self._traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        entered_s = time.thread_time()
        zlib.crc32(self._weights)
        results: list[SampledTokens | BackplaneError | None] = [
            SampledTokens([7]) if one.sample else None for one in batch.sequences
        ]
        self.before.append(entered_s)
        self.after.append(time.thread_time())
        return StepResult(results)

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        pass

    def trim(self, seq_id: int, num_tokens: int) -> None:
        pass

    def release(self, seq_id: int) -> None:
        pass


def make_traits(layout: MemoryLayout, num_sequences: int, cache_tokens: int) -> ExecutorTraits:
    """An executor for so many sequences, with as many sequence ids again to keep."""
    return ExecutorTraits(
        layout=layout,
        max_sequences=2 * num_sequences,
        cache_tokens=cache_tokens,
        max_batch_tokens=1 << 18,
        slot_tokens=min(cache_tokens, 1 << 18),
        block_size=BLOCK_SIZE if layout is MemoryLayout.PAGED else 1,
        shareable=layout is not MemoryLayout.SLOTS,
    )


def make_runner(executor: Executor, max_running: int) -> BatchingRunner:
    """The toolkit over the executor."""
    traits = executor.traits
    info = RunnerInfo(
        model=ModelInfo(model_id="null", backend="null", backend_version="1", device="none"),
        limits=Limits(
            max_total_tokens=traits.slot_tokens,
            max_input_tokens=traits.slot_tokens - 1,
            max_batch_tokens=traits.max_batch_tokens,
            max_sequences=max_running,
            max_waiting_requests=1 << 20,
            cache_tokens=traits.cache_tokens,
        ),
        capabilities=Capabilities(sampling=("temperature",), stopping=("ignore_eos",)),
        vocabulary=Vocabulary(
            tokens=[b"x"] * VOCABULARY_SIZE, eos_token_ids=(0,), special_token_ids=(0,)
        ),
        tokenizer=RemoteTokenizer(),
    )
    return BatchingRunner(executor, info, settings=SchedulerSettings())


def request(number: int, num_prompt_tokens: int, max_new_tokens: int) -> Submit:
    """A request whose prompt is like no other's."""
    prompt = [1 + number % 997, 1 + number // 997, *[1] * (num_prompt_tokens - 2)]
    return Submit(
        request_id=f"{SERVER_ID}-{number}",
        prompt=[TokenSegment(token_ids=prompt)],
        stopping=StoppingParams(max_new_tokens=max_new_tokens, ignore_eos=True),
        sampling=SamplingParams(temperature=0.0),
    )


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Means without the slowest hundredth, in microseconds of the engine thread's CPU time."""

    before_us: float
    after_us: float

    @property
    def whole_us(self) -> float:
        return self.before_us + self.after_us


def measure_steps(runner: BatchingRunner, executor: NullExecutor, num_steps: int) -> StepCost:
    """Poll so often; what lies before `execute` and after it."""
    executor.before.clear()
    executor.after.clear()
    begun: list[float] = []
    done: list[float] = []
    for _ in range(num_steps):
        begun.append(time.thread_time())
        runner.poll(0.0)
        done.append(time.thread_time())
    before = [b - a for a, b in zip(begun, executor.before, strict=True)]
    after = [b - a for a, b in zip(executor.after, done, strict=True)]
    return StepCost(typical_us(before), typical_us(after))


def typical_us(times_s: list[float]) -> float:
    """A mean, since some steps cost more than others; but not of those the machine disturbed."""
    return statistics.fmean(sorted(times_s)[: len(times_s) * 99 // 100]) * 1e6


def batching_cost(
    layout: MemoryLayout,
    num_sequences: int,
    num_steps: int,
    *,
    num_queued: int = 0,
    num_cached_tokens: int = 0,
) -> StepCost:
    """A steady decode of so many sequences."""
    num_new = 2 * num_steps + 100
    cache_tokens = num_sequences * (64 + num_new + 32) + num_cached_tokens
    cache_tokens += -cache_tokens % BLOCK_SIZE
    executor = NullExecutor(make_traits(layout, num_sequences, cache_tokens))
    runner = make_runner(executor, num_sequences)
    number = 0
    # What is cached comes from requests that are over, as in life.
    size = max(64, num_cached_tokens // num_sequences)
    for _ in range(num_cached_tokens // size):
        runner.submit(request(number, size, 1))
        runner.poll(0.0)
        number += 1
    for _ in range(num_sequences + num_queued):
        runner.submit(request(number, 64, num_new))
        number += 1
    while runner.stats().running < num_sequences or runner.stats().batch_tokens > num_sequences:
        runner.poll(0.0)
    stats = runner.stats()
    if (stats.waiting, stats.cached_tokens) < (num_queued, num_cached_tokens * 9 // 10):
        raise RuntimeError(f"not what was to be measured: {stats}")
    gc.collect()
    gc.freeze()
    cost = measure_steps(runner, executor, num_steps)
    gc.unfreeze()
    return cost


def print_batching(num_steps: int) -> None:
    """The table of the toolkit alone."""
    print(f"{'batching toolkit':<34}{'schedule':>10}{'commit':>10}{'both, µs a step':>18}")

    def row(name: str, cost: StepCost) -> None:
        print(f"{name:<34}{cost.before_us:>10.1f}{cost.after_us:>10.1f}{cost.whole_us:>18.1f}")

    for layout in MemoryLayout:
        for num_sequences in (1, 16, 64, 256):
            cost = batching_cost(layout, num_sequences, num_steps)
            row(f"{layout.value}, {num_sequences} running", cost)
    for layout in MemoryLayout:
        row(
            f"{layout.value}, 256, and 10,000 queued",
            batching_cost(layout, 256, num_steps, num_queued=10_000),
        )
    row(
        "paged, 256, and 10⁶ cached blocks",
        batching_cost(MemoryLayout.PAGED, 256, num_steps, num_cached_tokens=BLOCK_SIZE * 10**6),
    )
    row(
        "cells, 256, and 10⁶ cached cells",
        batching_cost(MemoryLayout.CELLS, 256, num_steps, num_cached_tokens=10**6),
    )


# ── a whole worker ───────────────────────────────────────────────────────────────────────────


def play_server(path: str, num_streams: int, num_tokens: int, num_requests: int) -> None:
    """A server of one connection: keeps so many requests in flight, reads all that comes."""
    frames: FrameDecoder[FromWorker] = FrameDecoder(FromWorker)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        protocol = (PROTOCOL.major, PROTOCOL.minor)
        connection.sendall(encode(Hello(protocol=protocol, server_id=SERVER_ID)))
        numbers = iter(range(num_requests))
        send_some(connection, numbers, num_streams, num_tokens)
        num_done = 0
        while num_done < num_requests:
            num_ended = 0
            received = connection.recv(1 << 18)
            if not received:
                sys.exit("the worker left")
            for message in frames.feed(received):
                if isinstance(message, StepOutput):
                    num_ended += sum(one.finish_reason is not None for one in message.deltas)
                elif not isinstance(message, Ready | Accepted):
                    sys.exit(f"the worker said {message}")
            num_done += num_ended
            send_some(connection, numbers, num_ended, num_tokens)


def send_some(
    connection: socket.socket, numbers: Iterator[int], count: int, num_tokens: int
) -> None:
    """Send the next requests, one write for each."""
    for number in islice(numbers, count):
        connection.sendall(encode(request(number, 64, num_tokens)))


@dataclasses.dataclass(frozen=True)
class WorkerCost:
    """CPU microseconds of both threads, per step of the engine and per request."""

    engine_us: float
    io_us: float
    cpu_us_per_request: float
    requests_per_s: float


def worker_cost(
    num_streams: int,
    num_tokens: int,
    num_requests: int,
    weights: bytes,
) -> WorkerCost:
    """Serve so many requests over a Unix socket, to a client in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "worker.sock")
        loop = asyncio.new_event_loop()
        io_thread = threading.Thread(target=loop.run_forever, daemon=True)
        io_thread.start()
        executor = NullExecutor(
            make_traits(MemoryLayout.CELLS, max(64, num_streams), 1 << 20), weights
        )
        runner = make_runner(executor, num_streams)

        async def start() -> WorkerService:
            service = WorkerService("worker", runner, 1 << 20)
            await service.start(path)
            return service

        service = asyncio.run_coroutine_threadsafe(start(), loop).result()
        numbers = map(str, (num_streams, num_tokens, num_requests))
        client = subprocess.Popen([sys.executable, __file__, _PLAY_SERVER, path, *numbers])

        def stop_at_the_end() -> None:
            client.wait()
            service.engine.stop()

        watcher = threading.Thread(target=stop_at_the_end, daemon=True)
        watcher.start()
        assert io_thread.ident is not None
        io_clock = time.pthread_getcpuclockid(io_thread.ident)
        while not service.busy and client.poll() is None:
            time.sleep(0.01)
        begun_s, cpu_s = time.monotonic(), time.thread_time()
        io_s = time.clock_gettime(io_clock)
        service.engine.run()
        engine_s = time.thread_time() - cpu_s - (sum(executor.after) - sum(executor.before))
        io_s = time.clock_gettime(io_clock) - io_s
        wall_s = time.monotonic() - begun_s
        watcher.join()
        asyncio.run_coroutine_threadsafe(service.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        io_thread.join()
        num_steps = runner.stats().num_steps
        runner.close()
        return WorkerCost(
            engine_s / num_steps * 1e6,
            io_s / num_steps * 1e6,
            (engine_s + io_s) / num_requests * 1e6,
            num_requests / wall_s,
        )


def print_worker(num_steps: int) -> None:
    """The table of the worker's threads."""
    print(f"\n{'worker, an engine of 2 MB':<34}{'engine':>10}{'I/O':>10}{'both, µs a step':>18}")
    for num_streams in (1, 16, 64, 256):
        cost = worker_cost(num_streams, num_steps, num_streams, bytes(2 << 20))
        both_us = cost.engine_us + cost.io_us
        print(f"{num_streams:<34}{cost.engine_us:>10.1f}{cost.io_us:>10.1f}{both_us:>18.1f}")
    cost = worker_cost(16, 8, 5000, b"")
    print(
        f"\n16 closed-loop streams of 8 tokens: {cost.cpu_us_per_request:.0f} µs of worker CPU a "
        f"request, {cost.requests_per_s:.0f} requests/s"
    )


def main() -> None:
    """Print both tables; or be the client of the second."""
    if sys.argv[1:2] == [_PLAY_SERVER]:
        path, *numbers = sys.argv[2:]
        play_server(path, *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="steps to measure")
    parser.add_argument("--only", choices=["batching", "worker"], help="one of the tables alone")
    arguments = parser.parse_args()
    gc.set_threshold(20_000, 10, 10)  # as the worker's
    if arguments.only != "worker":
        print_batching(arguments.steps)
    if arguments.only != "batching":
        print_worker(arguments.steps)


if __name__ == "__main__":
    main()
