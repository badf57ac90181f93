"""The torch backend in bf16 and int8 beside the llama.cpp backend, `transformers serve` and vLLM.

`python -m benchmarks.torch_table`, over HTTP with SSE: prompts of 157 tokens, 96 new ones, greedy.
Prompts are words: `transformers serve` takes no token ids, and knows no `ignore_eos`. "peak MiB" is
what all processes of a server held at most in the turn (`peak_memory`), at start see the progress.
"""

from collections.abc import Callable, Mapping
from typing import Final

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import Server, backplane, transformers_serving, vllm_serve
from benchmarks.engine_table import COLUMNS, LEAST_REQUESTS, NEW, PROMPT
from benchmarks.hf_model import hf_of
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

SHAPE: Final = "125m-text"
SHOWN: Final = (*COLUMNS, "peak MiB", "prompt", "new")
COMPARED: Final = (*COLUMNS, "peak MiB")
SUBJECTS: Final = ("torch bf16", "torch int8")


def _torch(*flags: str, name: str) -> Server:
    return backplane(hf_of(SHAPE), "--backend", "torch", *flags, name=name)


def _llamacpp(type_: str, *, name: str) -> Server:
    return backplane(gguf_of(SHAPE, type_), "--backend", "llamacpp", name=name)


CONTENDERS: Final[Mapping[str, Callable[[], Server]]] = {
    "torch-bf16": lambda: _torch("--dtype", "bfloat16", name="torch bf16"),
    "torch-int8": lambda: _torch("--quantize", "int8", name="torch int8"),
    "llamacpp-bf16": lambda: _llamacpp("bf16", name="llamacpp bf16"),
    "llamacpp-q8": lambda: _llamacpp("q8_0", name="llamacpp Q8_0"),
    "transformers": lambda: transformers_serving(hf_of(SHAPE)),
    "vllm": lambda: vllm_serve(hf_of(SHAPE)),
}


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 32])
    made.add_argument("--waves", type=int, default=1, help="requests of each stream")
    made.add_argument("--only", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help="who")
    asked = made.parse_args()
    servers = [CONTENDERS[name]() for name in asked.only]
    tasks = [
        Task(
            name=f"{streams}",
            settings=BenchSettings(
                concurrency=(streams,),
                requests=max(LEAST_REQUESTS, asked.waves * streams),
                prompts="words",
                prompt_length=str(PROMPT),
                output_length=str(NEW),
                stop_at_end=True,  # no answer of this model ends before it must
            ),
            fields={server.name: {"temperature": 0} for server in servers},
        )
        for streams in asked.streams
    ]
    turns = contest(servers, tasks, asked.rounds)
    print("streams; each over HTTP\n")
    firsts = [server.name for server in servers if server.name in SUBJECTS]
    report(asked, turns, shown=SHOWN, compared=COMPARED, firsts=firsts)


if __name__ == "__main__":
    main()
