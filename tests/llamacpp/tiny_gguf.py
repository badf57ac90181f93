"""Writes tiny GGUF models: the Llama architecture, random float32 weights, a real vocabulary.

Same arguments, same bytes: what a test learns of one holds on every machine.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL_TEMPLATE = "{# tools #}" + CHAT_TEMPLATE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

_MERGED_WORDS = (" the", " and", " of", "Hello", " world", "ing", "tion", "\n\n", "    ", " é")
_SPM_WORDS = (
    "▁",
    "▁the",
    "▁world",
    "Hello",
    "▁Hello",
    "ing",
    "e",
    "o",
    "l",
    "é",
    "世界",
    "▁a",
    "lo",
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a tiny model."""

    context: int = 512
    width: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 64
    seed: int = 1


def byte_letters() -> dict[int, str]:
    """GPT-2's byte alphabet: each byte as one printable letter."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    hidden = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + count) for count, byte in enumerate(hidden)}


def bpe_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, types and merges of a byte-level BPE: 256 bytes, a few merged words, specials."""
    letters = byte_letters()
    tokens = [letters[byte] for byte in range(256)]
    merges: list[str] = []
    for word in _MERGED_WORDS:
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            merged = parts[0] + parts[1]
            if merged not in tokens:
                tokens.append(merged)
                merges.append(f"{parts[0]} {parts[1]}")
            parts = [merged, *parts[2:]]
    types = [NORMAL] * len(tokens)
    specials = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|stop|>"]
    tokens += [*specials, "<tool>"]
    types += [CONTROL] * len(specials) + [USER_DEFINED]
    return tokens, types, merges


def spm_vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a SentencePiece vocabulary with byte fallback."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_SPM_WORDS]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(_SPM_WORDS)]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(_SPM_WORDS))]
    return tokens, scores, types


def write(
    path: Path,
    *,
    vocabulary: str = "bpe",
    shape: Shape | None = None,
    architecture: str = "llama",
    more_tokens: Sequence[str] = (),
    splits: str = "gpt-2",
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a model to `path` and return it. `vocabulary` is "bpe" or "spm".

    `tensors` are all weights; without them, they are those of `tensors_of`.

    `more_tokens` go behind those of "bpe", in its byte letters; no text is encoded by them, unless
    `splits`, llama.cpp's name for how text is split, is one that looks for whole words first.
    """
    shape = shape or Shape()
    writer = gguf.GGUFWriter(path, architecture)
    num_tokens = write_vocabulary(writer, vocabulary, more_tokens, splits)
    _write_header(writer, shape, num_tokens)
    for name, tensor in (tensors or tensors_of(shape, num_tokens)).items():
        writer.add_tensor(name, tensor)
    flush(writer)
    return path


def write_split(folder: Path, *, parts: int = 3, shape: Shape | None = None) -> list[Path]:
    """Write the same model in `parts` files, named as llama.cpp's splitter names them."""
    shape = shape or Shape()
    tensors = list(tensors_of(shape, len(bpe_vocabulary()[0])).items())
    share = -(-len(tensors) // parts)
    paths = [folder / f"tiny-{part + 1:05d}-of-{parts:05d}.gguf" for part in range(parts)]
    for part, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "llama")
        if part == 0:
            _write_header(writer, shape, write_vocabulary(writer, "bpe"))
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", parts)
        writer.add_int32("split.tensors.count", len(tensors))
        for name, tensor in tensors[part * share : (part + 1) * share]:
            writer.add_tensor(name, tensor)
        flush(writer)
    return paths


def flush(writer: gguf.GGUFWriter) -> None:
    """Write all that was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_header(writer: gguf.GGUFWriter, shape: Shape, num_tokens: int) -> None:
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(num_tokens)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def write_vocabulary(
    writer: gguf.GGUFWriter, kind: str, more_tokens: Sequence[str] = (), splits: str = "gpt-2"
) -> int:
    """Add a vocabulary and, to "bpe", chat templates; the number of its tokens."""
    if kind == "bpe":
        tokens, types, merges = bpe_vocabulary()
        tokens += more_tokens
        types += [NORMAL] * len(more_tokens)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splits)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(tokens.index("<|begin|>"))
        writer.add_eos_token_id(tokens.index("<|end|>"))
        writer.add_eot_token_id(tokens.index("<|stop|>"))
        writer.add_add_bos_token(True)
        writer.add_chat_template(
            [
                {"name": "default", "template": CHAT_TEMPLATE},
                {"name": "tool_use", "template": TOOL_TEMPLATE},
            ]
        )
    else:
        tokens, scores, types = spm_vocabulary()
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    return len(tokens)


def tensors_of(shape: Shape, num_tokens: int) -> dict[str, np.ndarray]:
    """All weights by their GGUF names; a matrix's rows are its outputs."""
    random = np.random.default_rng(shape.seed)
    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads

    def weights(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        values = random.standard_normal((rows, columns)) * scale / np.sqrt(columns)
        return values.astype(np.float32)

    ones = np.ones(width, np.float32)
    tensors = {"token_embd.weight": weights(num_tokens, width, np.sqrt(width))}
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        tensors |= {
            block + "attn_norm.weight": ones,
            block + "attn_q.weight": weights(width, width, 2.0),
            block + "attn_k.weight": weights(kv_width, width, 2.0),
            block + "attn_v.weight": weights(kv_width, width, 2.0),
            block + "attn_output.weight": weights(width, width, 2.0),
            block + "ffn_norm.weight": ones,
            block + "ffn_gate.weight": weights(shape.feed_forward, width),
            block + "ffn_up.weight": weights(shape.feed_forward, width),
            block + "ffn_down.weight": weights(width, shape.feed_forward),
        }
    tensors["output_norm.weight"] = ones
    tensors["output.weight"] = weights(num_tokens, width, 3.0)
    return tensors
