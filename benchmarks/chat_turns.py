"""Conversations: 16 at a time of 8 turns each; what is computed anew of a prompt that has grown.

`python -m benchmarks.chat_turns`. A turn's new tokens are those behind the answer before, and what
was computed in excess of them was in the cache and was not found there.
"""

from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import backplane, llama_server
from benchmarks.random_model import gguf_of
from benchmarks.rounds import Task, contest, parser, report

TURNS, CONVERSATIONS, SAID, NEW = 8, 16, 6, 12
SHOWN = ("output tok/s", "TTFT p50 ms", "TTFT p95 ms", "ITL p99 ms", "prompt", "prefilled", "added")


def main() -> None:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--conversations", type=int, default=CONVERSATIONS)
    asked = made.parse_args()
    model = gguf_of("125m-chat")
    servers = [backplane(model), llama_server(model)]
    settings = BenchSettings(
        concurrency=(asked.conversations,),
        requests=asked.conversations,
        turns=TURNS,
        prompts="words",
        prompt_length=str(SAID),
        output_length=str(NEW),
        per_request=True,
    )
    greedy = {server.name: {"temperature": 0} for server in servers}
    tasks = [
        Task(name="cold", settings=settings, fields=greedy),
        # The same conversations, word for word: all that was said is in some cache.
        Task(name="warm", settings=settings, fields=greedy, repeats="cold"),
    ]
    turns = contest(servers, tasks, asked.rounds)
    report(asked, turns, shown=SHOWN, compared=SHOWN[:4])


if __name__ == "__main__":
    main()
