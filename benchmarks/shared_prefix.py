"""Prompts that begin alike: 1,180 common tokens, 80 of each request's own, 32 new, 16 streams.

`python -m benchmarks.shared_prefix`; "cold" includes computing the common part, "warm" finds it in
the cache. The ceiling computes the tokens that no cache has, and nothing else: the common ones
once, or not at all.
"""

import dataclasses

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import Ceiling, backplane, llama_server, offer_patched, vllm_serve
from benchmarks.hf_model import hf_of
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

SHARED, OWN, NEW, STREAMS = 1180, 80, 32, 16
SHOWN = (
    *("output tok/s", "TTFT p50 ms", "TTFT p95 ms", "ITL p50 ms", "ITL p99 ms"),
    *("prompt", "prefilled"),
)


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--vllm", action="store_true", help="vLLM too, which takes a minute to start")
    made.add_argument("--cold-only", action="store_true", help="not the beginning known already")
    made.add_argument("--alone", action="store_true", help="no peer: llama-server takes a minute")
    offer_patched(made)
    asked = made.parse_args()
    model = gguf_of("125m")
    servers = [backplane(model)] if asked.alone else [backplane(model), llama_server(model)]
    if asked.vllm:
        servers.append(vllm_serve(hf_of("125m")))
    settings = BenchSettings(
        concurrency=(STREAMS,),
        requests=STREAMS,
        shared_prefix=SHARED,
        prompt_length=str(OWN),
        output_length=str(NEW),
    )
    greedy = {server.name: {"temperature": 0} for server in servers}
    ceiling = Ceiling(
        model=model,
        streams=STREAMS,
        prompt=SHARED,
        own=OWN,
        new=NEW,
        patched=asked.patched_ceiling,
    )
    cold = dataclasses.replace(ceiling, cached=False)
    kinds = ["cold"] if asked.cold_only else ["cold", "warm"]
    # In a round, the second has the first's seed and so its beginning; its requests are others.
    tasks = [
        Task(
            name=kind,
            settings=settings,
            fields=greedy,
            ceiling=cold if kind == "cold" else ceiling,
        )
        for kind in kinds
    ]
    turns = contest(servers, tasks, asked.rounds)
    report(asked, turns, shown=SHOWN, compared=SHOWN[:5])


if __name__ == "__main__":
    main()
