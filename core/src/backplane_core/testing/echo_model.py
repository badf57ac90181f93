"""What the echo backend computes in place of a model: a byte vocabulary and made-up logits.

Pure functions of token ids; knows nothing of batching, time or requests' queues.
"""

import re
from collections.abc import Collection, Iterable

from backplane_core.vocabulary import Vocabulary

NUM_BYTES = 256
BOS, EOS, IM_START, IM_END = range(NUM_BYTES, NUM_BYTES + 4)
SPECIAL_TEXTS = {
    BOS: b"<|bos|>",
    EOS: b"<|eos|>",
    IM_START: b"<|im_start|>",
    IM_END: b"<|im_end|>",
}
MIN_VOCABULARY = NUM_BYTES + len(SPECIAL_TEXTS)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# The token the echo is about, then seven others; everything else lies at the floor, where all
# of it together weighs less than 1e-11 and is left out unless a bias or a grammar lifts it.
WINDOW_LOGITS = (2.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0, -0.2)
FLOOR_LOGIT = -30.0

_FIRST_PRINTABLE = 32
_NUM_PRINTABLE = 95
_STRIDE = 13
_NEWLINE = ord("\n")
_CLOSING = b'"}]'
_SPECIAL_IDS = {mark: token_id for token_id, mark in SPECIAL_TEXTS.items()}
_SPECIAL_PATTERN = re.compile(b"(" + b"|".join(map(re.escape, SPECIAL_TEXTS.values())) + b")")


def vocabulary(size: int) -> Vocabulary:
    """Bytes, the four specials, then plain filler tokens "[260]", "[261]", … up to `size`."""
    tokens = [bytes([value]) for value in range(NUM_BYTES)]
    tokens += SPECIAL_TEXTS.values()
    tokens += [b"[%d]" % token_id for token_id in range(MIN_VOCABULARY, size)]
    return Vocabulary(
        tokens=tokens,
        special_token_ids=tuple(SPECIAL_TEXTS),
        eos_token_ids=(EOS,),
        bos_token_id=BOS,
        add_bos=True,
    )


def tokenize(text: str, *, add_special: bool, parse_special: bool) -> list[int]:
    """UTF-8 bytes as token ids; special texts as their ids where `parse_special`."""
    ids = [BOS] if add_special else []
    if not parse_special:
        return ids + list(text.encode())
    for piece in _SPECIAL_PATTERN.split(text.encode()):
        special = _SPECIAL_IDS.get(piece)
        ids += piece if special is None else [special]
    return ids


def echoed_tokens(prompt: list[int]) -> list[int]:
    """What is repeated: the last closed turn of a chat prompt, else the prompt; no specials."""
    if IM_END in prompt:
        end = len(prompt) - 1 - prompt[::-1].index(IM_END)
        before = prompt[:end]
        if IM_START in before:
            turn = before[len(before) - before[::-1].index(IM_START) :]
            prompt = turn[turn.index(_NEWLINE) + 1 :] if _NEWLINE in turn else turn
    return [token_id for token_id in prompt if token_id not in SPECIAL_TEXTS]


def expected_cycle(prompt: list[int], *, ignore_eos: bool, rotation: int = 0) -> list[int]:
    """The likeliest output, to be walked around: the echo, then an end token unless ignored."""
    cycle = echoed_tokens(prompt)
    if rotation:
        cycle = [rotate(token_id, rotation) for token_id in cycle]
    if not ignore_eos:
        cycle.append(EOS)
    return cycle or [_FIRST_PRINTABLE]


def rotate(token_id: int, by: int) -> int:
    """An adapter's effect: printable ASCII moves `by` places on, around the end."""
    if not _FIRST_PRINTABLE <= token_id < _FIRST_PRINTABLE + _NUM_PRINTABLE:
        return token_id
    return _FIRST_PRINTABLE + (token_id - _FIRST_PRINTABLE + by) % _NUM_PRINTABLE


def logits_around(token_id: int, lifted: Iterable[int]) -> dict[int, float]:
    """The made-up model's logits: `token_id` highest, seven printable characters below it.

    Tokens at the floor appear only where they are among `lifted`: those that a bias, a watermark
    or a grammar may bring up.
    """
    base = (token_id - _FIRST_PRINTABLE) % _NUM_PRINTABLE
    logits = {token_id: WINDOW_LOGITS[0]}
    for rank, logit in enumerate(WINDOW_LOGITS[1:], start=1):
        logits[_FIRST_PRINTABLE + (base + _STRIDE * rank) % _NUM_PRINTABLE] = logit
    for one in lifted:
        logits.setdefault(one, FLOOR_LOGIT)
    return logits


def likeliest_of(allowed: Collection[int], expected: int) -> int:
    """What echo says under a grammar: what it meant to, if it may; else what ends things soonest.

    The end itself, a quote or bracket that closes, the first digit or letter there is, or what
    is left: so that every text comes to an end, whatever the grammar.
    """
    if expected in allowed:
        return expected
    closing = next((one for one in (EOS, *_CLOSING) if one in allowed), None)
    if closing is not None:
        return closing
    return min(allowed, key=lambda one: (_dullness(one), one))


def _dullness(token_id: int) -> int:
    """Digits and letters first, other characters that are seen next, then all else."""
    if token_id < NUM_BYTES and chr(token_id).isascii() and chr(token_id).isalnum():
        return 0
    return 1 if _FIRST_PRINTABLE < token_id < _FIRST_PRINTABLE + _NUM_PRINTABLE else 2


def ids_in(mask: memoryview) -> set[int]:
    """The ids whose bits are set: bit `id % 8` of byte `id // 8`."""
    bits = int.from_bytes(mask, "little")
    return {one for one in range(bits.bit_length()) if bits >> one & 1}
