"""Flags of `backplane bench`: which server, what load, what work, what is told of it."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

from backplane_launcher.settings.flag import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_NUMBER,
    counts,
    flag,
    numbers,
)

TARGET: Final = Group("Whom", sort_key=1)
LOAD: Final = Group("Load", sort_key=2)
WORK: Final = Group("Work", sort_key=3)
RESULT: Final = Group("Result", sort_key=4)
COMPARISON: Final = Group("Comparison", sort_key=5)

Api = Literal["openai-completions", "openai-chat", "tgi"]
PromptKind = Literal["auto", "ids", "words"]


def _several(group: Group, name: str, text: str) -> Any:
    """A flag with one value or several behind it."""
    return Parameter(name=name, group=group, help=text, negative=(), consume_multiple=True)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured, and how. Lengths are in tokens, times in seconds."""

    url: Annotated[str, flag(TARGET, "--url", help="The server, as http://HOST:PORT.")] = (
        "http://127.0.0.1:3000"
    )
    api: Annotated[
        Api,
        flag(
            TARGET,
            "--api",
            help="Which of its APIs: /v1/completions, /v1/chat/completions, or TGI's "
            "/generate_stream (with --no-stream /generate).",
        ),
    ] = "openai-completions"
    no_stream: Annotated[
        bool, flag(TARGET, "--no-stream", help="Ask for whole answers, not for streams.")
    ] = False
    model: Annotated[
        str | None,
        flag(TARGET, "--model", help="The model's name in requests; /v1/models says it if unset."),
    ] = None
    api_key: Annotated[str | None, flag(TARGET, "--api-key", help="The server's key.")] = None
    extra: Annotated[
        str,
        flag(
            TARGET,
            "--extra",
            help="Further fields of every request as a JSON object, such as "
            '{"temperature": 0.8}; for tgi they are `parameters`. They win over ours.',
        ),
    ] = "{}"
    stop_at_end: Annotated[
        bool,
        flag(
            TARGET,
            "--stop-at-end",
            help="Let the model end early. Else OpenAI's APIs are sent `ignore_eos`, which all "
            "but OpenAI's own servers know; TGI's has no such word.",
        ),
    ] = False
    timeout: Annotated[
        float,
        flag(TARGET, "--timeout", help="Seconds for a request.", validator=POSITIVE_NUMBER),
    ] = 600.0

    concurrency: Annotated[
        tuple[int, ...],
        flag(
            LOAD,
            "--concurrency",
            help="Closed loop: so many streams, each sending its next request when the last is "
            "answered. Several with commas between are measured one after the other.",
            converter=counts,
        ),
    ] = ()
    rate: Annotated[
        tuple[float, ...],
        flag(
            LOAD,
            "--rate",
            help="Open loop: so many requests a second, at random times (Poisson), however many "
            "are under way. Several with commas between.",
            converter=numbers,
        ),
    ] = ()
    requests: Annotated[
        int | None,
        flag(
            LOAD,
            "--requests",
            help="Requests at each level; four a stream and at least 16 if neither this nor "
            "--duration is given.",
            validator=POSITIVE,
        ),
    ] = None
    duration: Annotated[
        float | None,
        flag(
            LOAD,
            "--duration",
            help="Seconds in which requests are started, in place of --requests.",
            validator=POSITIVE_NUMBER,
        ),
    ] = None
    warmup: Annotated[
        int | None,
        flag(
            LOAD,
            "--warmup",
            help="Requests before each level that do not count; one a stream, at most 4, if unset.",
            validator=NOT_NEGATIVE,
        ),
    ] = None
    seed: Annotated[
        int | None,
        flag(
            LOAD,
            "--seed",
            help="What prompts, lengths and times are drawn from. Drawn itself if unset, so that "
            "no server finds the prompts of an earlier run in its cache.",
            validator=NOT_NEGATIVE,
        ),
    ] = None

    prompt_length: Annotated[
        str,
        flag(
            WORK,
            "--prompt-length",
            help="Tokens of a prompt: 157, uniform:100:200, normal:157:40 (mean, deviation) or "
            "lognormal:157:0.5 (median, sigma).",
        ),
    ] = "157"
    output_length: Annotated[
        str, flag(WORK, "--output-length", help="New tokens, in the same words.")
    ] = "96"
    shared_prefix: Annotated[
        int,
        flag(
            WORK,
            "--shared-prefix",
            help="Tokens that all prompts begin with, before their own.",
            validator=NOT_NEGATIVE,
        ),
    ] = 0
    turns: Annotated[
        int,
        flag(
            WORK,
            "--turns",
            help="Turns of a conversation; each sends what was said before, the server's own "
            "answers with it.",
            validator=POSITIVE,
        ),
    ] = 1
    prompts: Annotated[
        PromptKind,
        flag(
            WORK,
            "--prompts",
            help="Made of token ids or of words; auto is ids where the API takes them.",
        ),
    ] = "auto"
    token_ids: Annotated[
        str,
        flag(
            WORK,
            "--token-ids",
            help="FIRST:END, the ids that prompts are drawn from: ordinary tokens in nearly every "
            "vocabulary if unset.",
        ),
    ] = "300:3000"  # noqa: S105 -- tokens, but no secret ones
    dataset: Annotated[
        str | None,
        flag(
            WORK,
            "--dataset",
            help="A file of prompts in place of made ones: JSON lines with `prompt`, `messages` "
            "or `conversations`, or one JSON array of them (as ShareGPT's).",
        ),
    ] = None

    slo: Annotated[
        str | None,
        flag(
            RESULT,
            "--slo",
            help="Limits in milliseconds, such as ttft:500,tpot:50,e2e:10000; goodput counts the "
            "requests that keep to all.",
        ),
    ] = None
    json: Annotated[
        str | None,
        flag(RESULT, "--json", help="A file for the result; - prints it.", takes_hyphen=True),
    ] = None
    per_request: Annotated[
        bool, flag(RESULT, "--per-request", help="Put every request's figures into it as well.")
    ] = False

    compare: Annotated[
        tuple[str, ...],
        _several(
            COMPARISON,
            "--compare",
            "NAME=URL of several servers, measured in turns; the first one's figures are divided "
            "by each other's.",
        ),
    ] = ()
    start: Annotated[
        tuple[str, ...],
        _several(
            COMPARISON,
            "--start",
            "NAME='COMMAND …' of a server to start and to stop: {port} stands for its port. "
            "With several, one runs at a time.",
        ),
    ] = ()
    keep: Annotated[
        bool,
        flag(
            COMPARISON,
            "--keep",
            help="Start each server once and let it stand idle while another's turn is; else each "
            "turn starts it anew.",
        ),
    ] = False
    start_timeout: Annotated[
        float,
        flag(
            COMPARISON,
            "--start-timeout",
            help="Seconds from start to ready.",
            validator=POSITIVE_NUMBER,
        ),
    ] = 300.0
    rounds: Annotated[
        int,
        flag(
            COMPARISON,
            "--rounds",
            help="Turns of each, where servers are several.",
            validator=POSITIVE,
        ),
    ] = 8
