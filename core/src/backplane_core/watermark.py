"""The green list: which tokens a watermark prefers after which, and how text is tested for it.

Integers alone decide, so every device, language and detector agrees. Knows no logits.
"""

import math
from collections.abc import Iterable
from itertools import pairwise

import msgspec

# Murmur3's 32-bit finalizer (Appleby 2011): two multiplications that wrap, three shifts.
MULTIPLIERS = (0x85EBCA6B, 0xC2B2AE35)
SHIFTS = (16, 13, 16)
_MASK = 0xFFFFFFFF
_SALT = 0x9E3779B9

#: Above this z-score a text is taken for watermarked: by chance 1 in 31,000 texts is.
Z_THRESHOLD = 4.0


def mix32(value: int) -> int:
    """32 bits in, 32 well-mixed bits out; a bijection."""
    first, second, third = SHIFTS
    value = ((value ^ (value >> first)) * MULTIPLIERS[0]) & _MASK
    value = ((value ^ (value >> second)) * MULTIPLIERS[1]) & _MASK
    return value ^ (value >> third)


def key_of(previous: int) -> int:
    """The 32-bit number that stands for the token before: `mix32` of its id and a salt."""
    return mix32((previous ^ _SALT) & _MASK)


def threshold(gamma: float) -> int:
    """What a green token's hash lies below, of 2**32."""
    return int(gamma * 2.0**32)


def is_green(previous: int, token_id: int, gamma: float) -> bool:
    """Whether `token_id` is green after `previous`, under a green share of `gamma`.

    That is `mix32(mix32(token_id) ^ key_of(previous)) < threshold(gamma)`. For a whole vocabulary
    `mix32` of all ids is computed once; a step then costs one `mix32` over it. Products that
    overflow keep their low bits in numpy's uint32 and in torch's int32 alike; the latter's shifts
    bring in the sign, which is to be masked, and its order is that of unsigned numbers once 2**31
    is taken from both sides.
    """
    return mix32(mix32(token_id & _MASK) ^ key_of(previous)) < threshold(gamma)


def green_ids(previous: int, num_tokens: int, gamma: float) -> list[int]:
    """All green ids of a vocabulary of `num_tokens`, ascending."""
    return [token_id for token_id in range(num_tokens) if is_green(previous, token_id, gamma)]


def least_scored(gamma: float) -> int:
    """The fewest scored tokens that can tell: of fewer, all green ones would be no proof.

    All of n green is a z-score of sqrt(n(1 - gamma) / gamma), which must pass `Z_THRESHOLD`, and by
    chance happens with gamma**n, which must be below that threshold's tail: for a small gamma the
    normal law promises too much. 17 at a gamma of 0.5.
    """
    by_score = math.floor(Z_THRESHOLD**2 * gamma / (1.0 - gamma)) + 1
    tail = 0.5 * math.erfc(Z_THRESHOLD / math.sqrt(2.0))
    return max(by_score, math.ceil(math.log(tail) / math.log(gamma)))


class WatermarkVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How strongly a text prefers green tokens.

    Attributes:
        num_scored: distinct pairs of a token and the one before it.
        num_green: of these, the green ones; without a watermark about `gamma` of them.
        z_score: how many standard deviations more than that; 0 where nothing was scored.
        p_value: how likely so many or more are by chance; 1 where nothing was scored.
    """

    num_scored: int
    num_green: int
    z_score: float
    p_value: float

    @property
    def watermarked(self) -> bool:
        """Whether the z-score is above `Z_THRESHOLD`."""
        return self.z_score > Z_THRESHOLD


def detect(token_ids: Iterable[int], gamma: float) -> WatermarkVerdict:
    """Test a text, as token ids of the model that may have written it (arXiv:2301.10226, eq. 3).

    A pair of tokens counts once however often it comes: its second time is no new evidence, and
    repetitive text would else look watermarked (section 4.1 there).

    Args:
        token_ids: the text without the prompt, or with it: unmarked tokens only dilute.
        gamma: the share of green tokens it was written under, 0 < gamma < 1.

    Raises:
        ValueError: `gamma` is no such share.
    """
    if not 0.0 < gamma < 1.0:
        raise ValueError(f"gamma of {gamma} is not between 0 and 1")
    pairs = set(pairwise(token_ids))
    if not pairs:
        return WatermarkVerdict(num_scored=0, num_green=0, z_score=0.0, p_value=1.0)
    num_green = sum(is_green(previous, token_id, gamma) for previous, token_id in pairs)
    deviation = math.sqrt(len(pairs) * gamma * (1.0 - gamma))
    z_score = (num_green - gamma * len(pairs)) / deviation
    return WatermarkVerdict(
        num_scored=len(pairs),
        num_green=num_green,
        z_score=z_score,
        p_value=0.5 * math.erfc(z_score / math.sqrt(2.0)),
    )
