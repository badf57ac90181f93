"""Flags of `backplane bench engine`, by the names that TGI's benchmark gives them."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Group

from backplane_launcher.settings.bench import RESULT, WORK
from backplane_launcher.settings.flag import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_NUMBER,
    counts,
    flag,
)

SAMPLING: Final = Group("Sampling", sort_key=3)


@dataclass(frozen=True, kw_only=True)
class BenchEngineSettings:
    """Which batches are measured. Lengths are in tokens."""

    batch_size: Annotated[
        tuple[int, ...],
        flag(
            WORK,
            "--batch-size",
            "-b",
            help="Sizes to measure one after the other, with commas between.",
            converter=counts,
        ),
    ] = (1, 2, 4, 8, 16, 32)
    sequence_length: Annotated[
        int,
        flag(WORK, "--sequence-length", "-s", help="Tokens of each prompt.", validator=POSITIVE),
    ] = 10
    decode_length: Annotated[
        int,
        flag(WORK, "--decode-length", "-d", help="New tokens of each.", validator=POSITIVE),
    ] = 8
    runs: Annotated[
        int, flag(WORK, "--runs", "-r", help="Batches of each size.", validator=POSITIVE)
    ] = 10
    warmups: Annotated[
        int,
        flag(
            WORK,
            "--warmups",
            "-w",
            help="Batches of each size before those, which do not count.",
            validator=NOT_NEGATIVE,
        ),
    ] = 1
    seed: Annotated[
        int,
        flag(WORK, "--seed", help="What prompts are drawn from.", validator=NOT_NEGATIVE),
    ] = 0

    temperature: Annotated[
        float,
        flag(SAMPLING, "--temperature", help="0 is greedy.", validator=NOT_NEGATIVE),
    ] = 0.0
    top_k: Annotated[int, flag(SAMPLING, "--top-k", help="0 is off.", validator=NOT_NEGATIVE)] = 0
    top_p: Annotated[
        float, flag(SAMPLING, "--top-p", help="1 is off.", validator=POSITIVE_NUMBER)
    ] = 1.0
    typical_p: Annotated[
        float, flag(SAMPLING, "--typical-p", help="1 is off.", validator=POSITIVE_NUMBER)
    ] = 1.0
    repetition_penalty: Annotated[
        float, flag(SAMPLING, "--repetition-penalty", help="1 is off.", validator=POSITIVE_NUMBER)
    ] = 1.0
    frequency_penalty: Annotated[float, flag(SAMPLING, "--frequency-penalty", help="0 is off.")] = (
        0.0
    )
    watermark: Annotated[bool, flag(SAMPLING, "--watermark", help="Mark the tokens.")] = False
    top_n_tokens: Annotated[
        int | None,
        flag(
            SAMPLING,
            "--top-n-tokens",
            help="Report the logprobs of each token and of so many others.",
            validator=NOT_NEGATIVE,
        ),
    ] = None

    json: Annotated[
        str | None,
        flag(RESULT, "--json", help="A file for the result; - prints it.", takes_hyphen=True),
    ] = None
