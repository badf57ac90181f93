"""Flags that bound what one request, one step and all requests together may take."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts.validators import Number

from backplane_launcher.settings.flag import LIMITS, NOT_NEGATIVE, POSITIVE, flag


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Tokens and requests. None is automatic."""

    max_concurrent_requests: Annotated[
        int,
        flag(
            LIMITS,
            "--max-concurrent-requests",
            help="Requests running and waiting; more are answered 429.",
            validator=POSITIVE,
        ),
    ] = 128
    max_client_batch_size: Annotated[
        int,
        flag(LIMITS, "--max-client-batch-size", help="Inputs in one request.", validator=POSITIVE),
    ] = 4
    max_best_of: Annotated[
        int, flag(LIMITS, "--max-best-of", help="Largest best_of.", validator=POSITIVE)
    ] = 2
    max_stop_sequences: Annotated[
        int,
        flag(
            LIMITS, "--max-stop-sequences", help="Stop strings a request.", validator=NOT_NEGATIVE
        ),
    ] = 4
    max_top_n_tokens: Annotated[
        int,
        flag(
            LIMITS,
            "--max-top-n-tokens",
            help="Largest top_n_tokens; above 20, of OpenAI's top_logprobs too.",
            validator=NOT_NEGATIVE,
        ),
    ] = 5
    max_input_tokens: Annotated[
        int | None,
        flag(
            LIMITS,
            "--max-input-tokens",
            "--max-input-length",
            help="Longest prompt, tokens. One of the names, not both.",
            validator=POSITIVE,
        ),
    ] = None
    max_total_tokens: Annotated[
        int | None,
        flag(
            LIMITS,
            "--max-total-tokens",
            "--max-model-len",
            "--ctx-size",
            help="Longest prompt and answer together, tokens.",
            validator=Number(gte=2),
        ),
    ] = None
    max_batch_prefill_tokens: Annotated[
        int | None,
        flag(
            LIMITS,
            "--max-batch-prefill-tokens",
            help="Prompt tokens computed in one step; longer prompts take several.",
            validator=POSITIVE,
        ),
    ] = None
    max_batch_total_tokens: Annotated[
        int | None,
        flag(
            LIMITS,
            "--max-batch-total-tokens",
            help="Tokens of all running requests together: the key-value cache.",
            validator=POSITIVE,
        ),
    ] = None
    max_batch_size: Annotated[
        int | None,
        flag(LIMITS, "--max-batch-size", help="Sequences in one step.", validator=POSITIVE),
    ] = None
