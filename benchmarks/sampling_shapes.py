"""What sampling takes of the engine's speed, on a vocabulary of 128,000 tokens.

`python -m benchmarks.sampling_shapes`: temperature 0.8, top-p 0.95, repetition penalty 1.1 and
logprobs; the same under a JSON schema; and greedy. Prompts of 157 tokens, 96 new ones.
"""

from typing import Any, Final

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import backplane, llama_server, offer_patched
from benchmarks.engine_table import LEAST_REQUESTS, NEW, PROMPT, ceiling_of
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

SCHEMA: Final = {
    "type": "object",
    "properties": {
        # Longer than any answer here, so that all have as many tokens.
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 200},
        "name": {"type": "string"},
        "about": {"type": "string"},
    },
    "required": ["tags", "name", "about"],
}
# No top-k and no min-p, which llama-server would add: the same work on both sides.
_SAMPLED: Final[dict[str, Any]] = {"temperature": 0.8, "top_p": 0.95, "logprobs": 1}
_OURS: Final = _SAMPLED | {"repetition_penalty": 1.1}
_THEIRS: Final = _SAMPLED | {
    "top_k": 0,
    "min_p": 0,
    "repeat_penalty": 1.1,
    "repeat_last_n": 512,  # all there is
}
_ASKED: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "greedy": ({"temperature": 0}, {"temperature": 0}),
    "sampled": (_OURS, _THEIRS),
    "JSON schema": (_OURS | {"guided_json": SCHEMA}, _THEIRS | {"json_schema": SCHEMA}),
}
SHOWN: Final = ("output tok/s", "TTFT p95 ms", "ITL p50 ms", "ITL p99 ms", "new")


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    made.add_argument("--kinds", nargs="+", choices=_ASKED, default=list(_ASKED))
    made.add_argument("--alone", action="store_true", help="no peer, which may fail on a grammar")
    offer_patched(made)
    asked = made.parse_args()
    model = gguf_of("125m-128k")
    ours, theirs = backplane(model), llama_server(model)
    tasks = [
        Task(
            name=f"{kind}, {streams}",
            settings=BenchSettings(
                concurrency=(streams,),
                requests=max(LEAST_REQUESTS, streams),
                prompt_length=str(PROMPT),
                output_length=str(NEW),
            ),
            ceiling=ceiling_of(model, streams, patched=asked.patched_ceiling),
            fields=dict(zip((ours.name, theirs.name), _ASKED[kind], strict=True)),
        )
        for kind in asked.kinds
        for streams in asked.streams
    ]
    turns = contest([ours] if asked.alone else [ours, theirs], tasks, asked.rounds)
    report(asked, turns, shown=SHOWN, compared=SHOWN[:4])


if __name__ == "__main__":
    main()
