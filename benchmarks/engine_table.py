"""Throughput and latency of the table's shape by number of streams: the engine's ceiling, Backplane
and llama-server, over HTTP with SSE.

`python -m benchmarks.engine_table`; prompts of 157 tokens, 96 new ones, a closed loop.
"""

from pathlib import Path

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import (
    OURS,
    Ceiling,
    backplane,
    example_server,
    llama_server,
    offer_patched,
    vllm_serve,
)
from benchmarks.hf_model import hf_of
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

PROMPT, NEW = 157, 96
COLUMNS = (
    *("output tok/s", "TTFT p50 ms", "TTFT p95 ms"),
    *("ITL p50 ms", "ITL p99 ms", "CPU us/tok"),
)
# Of few streams more waves are measured: else the first request after idling decides the round.
LEAST_REQUESTS = 8


def ceiling_of(model: Path, streams: int, *, patched: bool) -> Ceiling:
    """What the engine alone makes of the table's work."""
    return Ceiling(model=model, streams=streams, prompt=PROMPT, new=NEW, patched=patched)


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 32])
    made.add_argument("--waves", type=int, default=1, help="requests of each stream")
    made.add_argument("--alone", action="store_true", help="no llama-server")
    made.add_argument("--vllm", action="store_true", help="vLLM too, which takes a minute to start")
    made.add_argument("--example-server", action="store_true", help="llama-cpp-python's as well")
    offer_patched(made)
    asked = made.parse_args()
    model = gguf_of("125m")
    servers = [backplane(model)] if asked.alone else [backplane(model), llama_server(model)]
    if asked.vllm:
        servers.append(vllm_serve(hf_of("125m")))
    if asked.example_server:
        servers.append(example_server(model))
    tasks = [
        Task(
            name=f"{streams}",
            settings=BenchSettings(
                concurrency=(streams,),
                requests=max(LEAST_REQUESTS, asked.waves * streams),
                prompt_length=str(PROMPT),
                output_length=str(NEW),
            ),
            ceiling=ceiling_of(model, streams, patched=asked.patched_ceiling),
            # Greedy, on all sides.
            fields={server.name: {"temperature": 0} for server in servers},
        )
        for streams in asked.streams
    ]
    turns = contest(servers, tasks, asked.rounds)
    print(f"streams; {OURS} and others over HTTP\n")
    report(asked, turns, shown=COLUMNS, compared=COLUMNS)


if __name__ == "__main__":
    main()
