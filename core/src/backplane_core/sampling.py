"""One page of sampling semantics that every runner implements in its own native way.

`docs/sampling.md` is the prose, `backplane_core.testing.sampling_vectors` the test vectors.
"""

import msgspec

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

# A temperature below this cannot be told from 0 and would overflow float32 logits.
GREEDY_BELOW = 1e-5


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """A soft green-list watermark (Kirchenbauer et al. 2023, arXiv:2301.10226).

    `backplane_core.watermark` says which tokens are green: a function of the token before,
    the same on every device.

    Attributes:
        gamma: share of the vocabulary that is green, 0 < gamma < 1.
        delta: what is added to a green token's logit.
    """

    gamma: float = 0.5
    delta: float = 2.0


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is drawn. Processors apply in the order of the fields.

    Logits pass: `watermark` → `logit_bias` → `repetition_penalty` → `frequency_penalty` and
    `presence_penalty` → grammar mask → `temperature` → `top_k` → `top_p` → `min_p` →
    `typical_p` → draw. The repetition penalty looks at the prompt and the output together, the
    other two at the output alone, as OpenAI's formula counts what was sampled.
    Logprobs that are reported come from the model's own logits, before any of this.

    Attributes:
        watermark: prefer green tokens; None is off.
        logit_bias: token id → what is added to its logit.
        repetition_penalty: > 0; the logit of a token in the prompt or the output is divided by
            it where positive and multiplied where negative (CTRL, arXiv:1909.05858); 1 is off.
        frequency_penalty: subtracted once per occurrence in the output; 0 is off.
        presence_penalty: subtracted once if the token is in the output at all; 0 is off.
        temperature: ≥ 0; below 1e-5 is greedy: the highest logit, the lowest id among equals.
        top_k: keep the k highest; 0 is off.
        top_p: keep the smallest set of highest probability that reaches it; 1 is off.
        min_p: keep what has at least this share of the highest probability; 0 is off.
        typical_p: keep the locally typical set of this mass (arXiv:2202.00666); 1 is off.
        seed: 0 ≤ seed < 2**64; the server fills in a random one where the client gave none.
    """

    watermark: Watermark | None = None
    logit_bias: dict[int, float] = {}
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    seed: int = 0

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn at random."""
        return self.temperature < GREEDY_BELOW


class StoppingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a sequence ends, as far as token ids can say. Stop strings are the server's.

    Attributes:
        max_new_tokens: ≥ 1; exact.
        min_new_tokens: end tokens are masked until so many are there.
        stop_token_ids: end the sequence beside the model's own end tokens.
        ignore_eos: the model's own end tokens do not end it.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


def mix64(value: int) -> int:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): 64 bits in, 64 well-mixed bits out."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sequence_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of a request: choice 0 keeps the request's own."""
    return seed & _MASK if index == 0 else mix64(seed + index * _GOLDEN)


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that draws the token at `position`, counted from the prompt's start.

    A function of its arguments alone, so a draw does not depend on the batch, on preemption
    or on the order of requests. The token drawn is the first, by ascending token id, at which
    the cumulative probability of the kept tokens exceeds it.
    """
    return (mix64(mix64(seed) + (position + 1) * _GOLDEN) >> 11) * 2.0**-53
