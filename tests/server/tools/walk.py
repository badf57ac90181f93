"""Answers that a grammar allows, drawn at random byte by byte from llguidance's own masks."""

from random import Random

from backplane_core.guidance.compiling import compile_grammar
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.guidance.tokenizing import make_tokenizer
from backplane_core.vocabulary import Vocabulary

SPECIAL = (
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<think>", "</think>",
)  # fmt: skip
END_ID = 256
SPECIAL_IDS = {literal: 257 + number for number, literal in enumerate(SPECIAL)}
VOCABULARY = Vocabulary(
    tokens=[*(bytes([byte]) for byte in range(256)), b"<end>", *(s.encode() for s in SPECIAL)],
    special_token_ids=[END_ID, *SPECIAL_IDS.values()],
    eos_token_ids=[END_ID],
)
TOKENIZER = make_tokenizer(VOCABULARY)
_TEXTS = {token_id: literal.encode() for literal, token_id in SPECIAL_IDS.items()}
# What a walk takes more often, so that it comes to an end.
_ENDING = frozenset(b'"}])') | {END_ID}
MAX_STEPS = 2_000


def matcher_of(grammar):
    return compile_grammar(grammar, TOKENIZER, GuidanceLimits())


def walk(grammar, seed):
    """One text that the grammar allows; None where it has no end in `MAX_STEPS`."""
    random = Random(seed)  # noqa: S311 -- drawn, not secret
    matcher = matcher_of(grammar)
    text = bytearray()
    for _ in range(MAX_STEPS):
        mask = matcher.compute_bitmask()
        assert not matcher.is_error(), matcher.get_error()
        allowed = [
            token for token in range(len(VOCABULARY.tokens)) if mask[token // 8] >> token % 8 & 1
        ]
        assert allowed, "a grammar never leads into a dead end"
        ending = [token for token in allowed if token in _ENDING]
        token = random.choice(ending if ending and random.random() < 0.5 else allowed)
        if token == END_ID:
            return text.decode()
        text += _TEXTS.get(token) or bytes([token])
        assert matcher.consume_token(token)
    return None


def allows(grammar, text, special):
    """Whether a grammar allows a text whose literals `special` are single tokens."""
    tokens = []
    while text:
        literal = next((literal for literal in special if text.startswith(literal)), None)
        tokens += [special[literal]] if literal else text[0].encode()
        text = text[len(literal or text[0]) :]
    matcher = matcher_of(grammar)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
