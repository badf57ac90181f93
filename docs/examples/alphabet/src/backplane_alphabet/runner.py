"""The runner: limits, vocabulary and tokenizer around an executor. The toolkit does the rest."""

from backplane_core.backend import EngineSettings, RunnerSpec
from backplane_core.batching.runner import BatchingRunner
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import ModelError
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.runner import ModelRunner
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary

from backplane_alphabet.executor import END, AlphabetExecutor

END_TEXT = "<end>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"

CAPABILITIES = Capabilities(
    sampling=("logit_bias", "temperature", "top_k", "seed"),
    stopping=("min_new_tokens", "stop_token_ids", "ignore_eos"),
    max_top_logprobs=20,
    deterministic_seeds=True,
)


class AlphabetRunner(BatchingRunner):
    """Adds the tokenizer, since no `tokenizer.json` holds this vocabulary."""

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """UTF-8 bytes; the end's own text becomes its id where `parse_special`."""
        del add_special  # an alphabet has no token that begins a text
        return [_parsed(text) if parse_special else list(text.encode()) for text in texts]


def _parsed(text: str) -> list[int]:
    first, *rest = text.split(END_TEXT)
    ids = list(first.encode())
    for piece in rest:
        ids += [END, *piece.encode()]
    return ids


def _limits(engine: EngineSettings) -> Limits:
    """What the command line asks for, or something modest."""
    max_total_tokens = engine.max_total_tokens or 256
    max_sequences = engine.max_batch_size or 8
    if engine.max_batch_total_tokens:
        max_sequences = max(
            1, min(max_sequences, engine.max_batch_total_tokens // max_total_tokens)
        )
    return Limits(
        max_total_tokens=max_total_tokens,
        max_input_tokens=engine.max_input_tokens or max_total_tokens - 1,
        max_batch_tokens=engine.max_batch_prefill_tokens or max_total_tokens,
        max_sequences=max_sequences,
        max_waiting_requests=engine.max_concurrent_requests,
        cache_tokens=max_sequences * max_total_tokens,
    )


def load(spec: RunnerSpec, stride: int, step_seconds: float) -> ModelRunner:
    """A runner under the settings that the launcher hands down.

    Raises:
        ModelError: files were named; an alphabet has none.
    """
    if spec.model.path is not None:
        raise ModelError(f"{spec.model.path}: an alphabet is not loaded from files")
    limits = _limits(spec.engine)
    info = RunnerInfo(
        model=ModelInfo(
            model_id=spec.model.model_id,
            backend="alphabet",
            backend_version="0.1.0",
            device="cpu",
        ),
        limits=limits,
        capabilities=CAPABILITIES,
        vocabulary=Vocabulary(
            tokens=[*(bytes([value]) for value in range(END)), END_TEXT.encode()],
            special_token_ids=(END,),
            eos_token_ids=(END,),
        ),
        tokenizer=RemoteTokenizer(),
        # Without a "default" there is no chat: its routes answer 422.
        chat_templates={"default": CHAT_TEMPLATE},
    )
    return AlphabetRunner(AlphabetExecutor(limits, stride, step_seconds), info)
