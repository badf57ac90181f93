"""Models so small that the front end decides: one and three million parameters, 16 and 64 streams.

`python -m benchmarks.small_models`: Backplane, llama-server and vLLM; prompts of 157 tokens, 96
new ones, over HTTP with SSE, and short answers without it.
"""

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import backplane, llama_server, vllm_serve
from benchmarks.engine_table import COLUMNS, NEW, PROMPT
from benchmarks.hf_model import hf_of
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

SHORT_PROMPT, SHORT = 16, 8
SHOWN = ("req/s", *COLUMNS)


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--model", choices=("1m", "3m"), default="3m")
    made.add_argument("--streams", type=int, nargs="+", default=[16, 64])
    made.add_argument("--vllm", action="store_true", help="vLLM too, which takes a minute to start")
    asked = made.parse_args()
    model = gguf_of(asked.model)
    servers = [backplane(model), llama_server(model, slots=64)]
    if asked.vllm:
        servers.append(vllm_serve(hf_of(asked.model)))
    greedy = {server.name: {"temperature": 0} for server in servers}
    tasks: list[Task] = []
    for streams in asked.streams:
        long = BenchSettings(
            concurrency=(streams,),
            requests=2 * streams,
            prompt_length=str(PROMPT),
            output_length=str(NEW),
        )
        tasks.append(Task(name=f"streams, {streams}", settings=long, fields=greedy))
        short = BenchSettings(
            concurrency=(streams,),
            requests=8 * streams,
            prompt_length=str(SHORT_PROMPT),
            output_length=str(SHORT),
            no_stream=True,
        )
        tasks.append(Task(name=f"short, {streams}", settings=short, fields=greedy))
    turns = contest(servers, tasks, asked.rounds)
    report(asked, turns, shown=SHOWN, compared=SHOWN)


if __name__ == "__main__":
    main()
