"""Small vocabularies of the kinds that models have."""

from backplane_core.vocabulary import Vocabulary

_PIECES = (
    *('{"', '":', '": "', '", "', '"}', "[[", "]]", "},", "true", "false", "null", "name"),
    *("ab", "abc", "bc", "aa", "12", "123", "00", "  ", "\n  ", "end", " end", "é", "日本"),
)


def byte_level(pieces=_PIECES) -> Vocabulary:
    """End and begin first, then single bytes, then merges, one of them twice, and an empty one."""
    tokens = [b"</s>", b"<s>", *(bytes([byte]) for byte in range(256))]
    tokens += [piece.encode() for piece in pieces]
    tokens += [b"ab", b"", b"<|call|>"]
    return Vocabulary(
        tokens=tokens,
        special_token_ids=(0, 1, len(tokens) - 1),
        eos_token_ids=(0,),
        bos_token_id=1,
    )


def sentencepiece() -> Vocabulary:
    """Blanks lead words; most bytes only as fallback tokens, at the end of the table."""
    words = [" the", " name", "name", ' "', '"', "{", "}", ":", ",", " ", "a", "b", " ab", "é"]
    tokens = [b"<unk>", b"<s>", b"</s>", *(word.encode() for word in words)]
    known = set(tokens)
    tokens += [bytes([byte]) for byte in range(256) if bytes([byte]) not in known]
    return Vocabulary(
        tokens=tokens,
        special_token_ids=(0, 1, 2),
        eos_token_ids=(2,),
        bos_token_id=1,
        strip_leading_space=True,
    )


def ids_of(mask) -> list[int]:
    """The token ids that a mask allows."""
    return [
        8 * place + bit
        for place, byte in enumerate(bytes(mask))
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]
