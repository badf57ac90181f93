"""What a token of a `tokenizer.json` stands for: its exact bytes, read from the file's decoder.

The library's own decoding is of whole texts: it joins, and replaces what is no whole character.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec
from backplane_core.errors import ModelError

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Step(msgspec.Struct, frozen=True):
    """A decoder or pre-tokenizer as the file writes it: `type` says which fields mean something.

    Attributes:
        decoders, pretokenizers: the parts of a `Sequence`.
        pattern, content: of `Replace` (`{"String": …}` or `{"Regex": …}`); the last of `Strip` too.
        replacement, prepend_scheme, add_prefix_space: of `Metaspace`; the last is an older form.
        start: how many of `content` are stripped at the beginning.
        suffix: what ends a word, of `BPEDecoder`.
    """

    type: str
    decoders: tuple["Step", ...] = ()
    pretokenizers: tuple["Step", ...] = ()
    pattern: dict[str, str] = {}
    content: str = ""
    replacement: str = ""
    prepend_scheme: str | None = None
    add_prefix_space: bool = True
    start: int = 0
    suffix: str = ""

    def flat(self) -> list["Step"]:
        """Itself, or the parts of a sequence, in order."""
        parts = (*self.decoders, *self.pretokenizers)
        if self.type == "Sequence":
            return [step for part in parts for step in part.flat()]
        return [self]


@dataclass(frozen=True, kw_only=True)
class TokenDecoding:
    """How one token becomes bytes.

    Attributes:
        replaced: what stands for what ("▁" for a space), applied in this order.
        byte_level: each character stands for a byte (GPT-2's alphabet).
        byte_fallback: `<0x0A>` is the byte 10.
        strip_leading_space: a text's first token has a space that the text has not.
    """

    replaced: tuple[tuple[str, str], ...] = ()
    byte_level: bool = False
    byte_fallback: bool = False
    strip_leading_space: bool = False

    def token_bytes(self, token: str) -> bytes:
        """Bytes of a token that the model's algorithm made."""
        for pattern, content in self.replaced:
            token = token.replace(pattern, content)
        if self.byte_level:
            try:
                return bytes(_BYTES_BY_CHARACTER[character] for character in token)
            except KeyError:  # not in the alphabet, so it was put into the vocabulary by hand
                return token.encode()
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
        return token.encode()

    def added_token_bytes(self, content: str) -> bytes:
        """Bytes of a token that is found in texts as it stands, and is no control token.

        Runs of "▁" are spaces even so: Gemma's are both added and made by the algorithm.
        """
        for pattern, replacement in self.replaced:
            content = content.replace(pattern, replacement)
        return content.encode()


def read_decoding(decoder: Step | None, pre_tokenizer: Step | None) -> TokenDecoding:
    """What a file's decoder does to one token.

    Raises:
        ModelError: it does something that no language model's decoder is known to do.
    """
    replaced: list[tuple[str, str]] = []
    kinds: set[str] = set()
    strip = False
    for step in _steps(decoder, pre_tokenizer):
        match step:
            case Step(type="ByteLevel" | "ByteFallback" | "Fuse"):
                pass
            case Step(type="Metaspace"):
                replaced.append((step.replacement, " "))
                # Which spaces are put in front, and taken away again: none, or that of the text.
                prepends = step.prepend_scheme != "never"
                strip = strip or (prepends and step.add_prefix_space)
            case Step(type="Replace", pattern={"String": pattern}):
                replaced.append((pattern, step.content))
            case Step(type="BPEDecoder"):
                replaced.append((step.suffix, " "))
            case Step(type="Strip", content=" "):
                strip = strip or step.start > 0
            case _:
                raise ModelError(
                    f"tokenizer.json decodes by {step.type}, which this backend cannot do a token "
                    "at a time",
                    remedy="use a model whose tokenizer is byte-level BPE or SentencePiece",
                )
        kinds.add(step.type)
    return TokenDecoding(
        replaced=tuple(replaced),
        byte_level="ByteLevel" in kinds,
        byte_fallback="ByteFallback" in kinds,
        strip_leading_space=strip,
    )


def _steps(decoder: Step | None, pre_tokenizer: Step | None) -> list[Step]:
    """A file without a decoder still says what its tokens are written in."""
    if decoder is not None:
        return decoder.flat()
    steps = pre_tokenizer.flat() if pre_tokenizer is not None else []
    return [step for step in steps if step.type in {"ByteLevel", "Metaspace"}]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 is itself, other bytes are the letters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES_BY_CHARACTER: Final = _byte_alphabet()
