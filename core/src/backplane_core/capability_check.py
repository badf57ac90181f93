"""Holding what a request asks for against what a runner honours: one rule for all who ask.

Servers ask before a request costs anything and know the client's names for the parameters;
workers ask again, for whatever reaches them.
"""

from collections.abc import Iterator

from backplane_core.capabilities import Capabilities
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, StoppingParams

# What asks for nothing. A seed does only where a client gave it.
_NEUTRAL = tuple(
    (name, getattr(SamplingParams(), name))
    for name in SamplingParams.__struct_fields__
    if name != "seed"
)
_OPTIONAL_STOPPING = ("min_new_tokens", "stop_token_ids", "ignore_eos")


def unsupported(
    can: Capabilities,
    *,
    sampling: SamplingParams,
    stopping: StoppingParams,
    top_logprobs: int | None = None,
    prompt_logprobs: int | None = None,
    num_sequences: int = 1,
    seed_asked: bool = False,
    grammar: Grammar | None = None,
    adapter: str | None = None,
) -> Iterator[tuple[str, str]]:
    """Parameters outside the capabilities, each with what the backend lacks.

    Greedy, a temperature of 0, needs no capability: every runner must be able to take the
    highest logit. A seed matters only where the client asked for one (`seed_asked`): servers
    fill one in.
    """
    for name in _asked(sampling, stopping, seed_asked=seed_asked):
        if name not in can.sampling and name not in can.stopping:
            yield name, "does not have it"
    if top_logprobs is not None:
        if can.max_top_logprobs is None:
            yield "logprobs", "reports no logprobs"
        elif top_logprobs > can.max_top_logprobs:
            yield "top_logprobs", f"reports at most {can.max_top_logprobs} alternatives"
    if prompt_logprobs is not None and not can.prompt_logprobs:
        yield "prompt_logprobs", "reports no logprobs of the prompt"
    if num_sequences > 1 and not can.multiple_sequences:
        yield "num_sequences", "generates one sequence a request"
    if grammar is not None and grammar.kind not in can.grammars:
        yield "grammar", f"obeys no grammars of kind {grammar.kind}"
    if adapter is not None and not can.adapters:
        yield "adapter", "has no adapters"


def _asked(
    sampling: SamplingParams, stopping: StoppingParams, *, seed_asked: bool
) -> Iterator[str]:
    for name, neutral in _NEUTRAL:
        if getattr(sampling, name) != neutral and not (name == "temperature" and sampling.greedy):
            yield name
    if seed_asked:
        yield "seed"
    yield from (name for name in _OPTIONAL_STOPPING if getattr(stopping, name))
