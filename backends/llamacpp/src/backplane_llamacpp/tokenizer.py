"""llama.cpp's own encoding and vocabulary table."""

from backplane_core.vocabulary import Vocabulary

from backplane_llamacpp.native.model import NativeModel

_SENTENCE_PIECE = 1  # LLAMA_VOCAB_TYPE_SPM


class LlamaCppTokenizer:
    """Encodes with the model's vocabulary, which is read-only: any thread may call."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model

    def encode_batch(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """Token ids of each text."""
        return [
            self._model.encode(
                text.encode("utf-8", "replace"),
                add_special=add_special,
                parse_special=parse_special,
            )
            for text in texts
        ]


def read_vocabulary(model: NativeModel, metadata: dict[str, str]) -> Vocabulary:
    """The table of exact bytes per token, and the ids that mean something."""
    ids = range(model.n_vocab)
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", "true") == "true"
    return Vocabulary(
        tokens=[model.piece(token_id) for token_id in ids],
        special_token_ids=tuple(token_id for token_id in ids if model.is_special(token_id)),
        eos_token_ids=tuple(token_id for token_id in ids if model.ends_generation(token_id)),
        bos_token_id=model.bos_token_id,
        add_bos=model.adds_bos,
        strip_leading_space=model.vocabulary_type == _SENTENCE_PIECE and prefixed,
    )
