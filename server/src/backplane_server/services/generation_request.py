"""A generation as every dialect asks for it, once its JSON is read. Neutral of dialects."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from backplane_core.capabilities import Capabilities
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One prompt and what is to be done with it.

    Attributes:
        prompt: text, or token ids that are taken as they are.
        add_special: whether the tokenizer adds its special tokens (not after a chat template).
        sampling: with `seed` left at 0; the seed that counts is the one below.
        seed: the client's; None draws one.
        max_new_tokens: None is the rest of the context.
        stops: stop strings; `keep_stop` says whether they stay in the text.
        top_logprobs: None is no logprobs; n is the chosen token's and the n highest.
        implied_logprobs: `top_logprobs` is 0 because the route shows logprobs, not because the
            client asked; a backend without them is asked for none.
        truncate: keep the last n prompt tokens.
        prompt_logprobs: likewise for the prompt's tokens.
        grammar: what the text must obey, checked before a worker is asked.
        adapter: the adapter's name; None is the bare model.
        special_literals: special tokens that are text all the same: markup that a parser reads.
        show_special: whether all special tokens are, but the one that ended the sequence.
        names: contract field → the dialect's name for it, where they differ.
    """

    prompt: str | list[int]
    add_special: bool
    sampling: SamplingParams
    seed: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    keep_stop: bool
    top_logprobs: int | None = None
    num_sequences: int = 1
    implied_logprobs: bool = False
    truncate: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    adapter: str | None = None
    special_literals: frozenset[str] = frozenset()
    show_special: bool = False
    names: Mapping[str, str] = field(default_factory=dict[str, str])

    def fitted_to(self, can: Capabilities) -> "GenerationRequest":
        """The same request without what only the route would have liked and `can` has not."""
        if self.implied_logprobs and can.max_top_logprobs is None:
            return replace(self, top_logprobs=None)
        return self

    def name_of(self, parameter: str) -> str:
        """What the client calls a parameter."""
        return self.names.get(parameter, parameter)
