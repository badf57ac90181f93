"""Which files are taken, for the repositories one meets."""

import pytest
from backplane_core.backend import ModelSource, Native, Unsupported
from backplane_core.errors import ModelError
from backplane_llamacpp.backend import LlamaCppBackend

SPLIT = tuple(f"Q8_0/big-Q8_0-{part:05d}-of-00003.gguf" for part in (1, 2, 3))
QUANTS = (
    "README.md",
    "model-Q2_K.gguf",
    "model-Q4_0.gguf",
    "model-Q4_K_M.gguf",
    "model-Q4_K_S.gguf",
    "model-BF16.gguf",
    "model-F16.gguf",
    "mmproj-model-f16.gguf",
    "imatrix.gguf",
)


def source(
    files: tuple[str, ...], variant: str | None = None, gguf_file: str | None = None
) -> ModelSource:
    return ModelSource(model_id="o/m", files=files, variant=variant, gguf_file=gguf_file)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (source(("m.gguf",)), ("m.gguf",)),
        (source(("m.GGUF", "config.json")), ("m.GGUF",)),
        (source(QUANTS), ("model-Q4_K_M.gguf",)),
        (
            source(("m.gguf", "tokenizer_config.json", "chat_template.jinja", "x.jinja")),
            ("m.gguf", "chat_template.jinja", "tokenizer_config.json"),
        ),
        (source(QUANTS, "Q2_K"), ("model-Q2_K.gguf",)),
        (source(QUANTS, "q4_k_s"), ("model-Q4_K_S.gguf",)),
        (source(QUANTS, "F16"), ("model-F16.gguf",)),
        (source(QUANTS, "bf16"), ("model-BF16.gguf",)),
        (source(QUANTS, gguf_file="model-Q2_K.gguf"), ("model-Q2_K.gguf",)),
        (source(("a-f16.gguf", "a-q8_0.gguf")), ("a-q8_0.gguf",)),
        (source(SPLIT), SPLIT),
        (source((*SPLIT, "small-Q4_K_M.gguf")), ("small-Q4_K_M.gguf",)),
        (source((*SPLIT, "small-Q4_K_M.gguf"), "Q8_0"), SPLIT),
        (source((*SPLIT, "small-Q4_K_M.gguf"), gguf_file=SPLIT[1]), SPLIT),
        (source((*SPLIT, "small-Q4_K_M.gguf"), gguf_file="big-Q8_0-00001-of-00003.gguf"), SPLIT),
        (source(("x-MXFP4.gguf", "x-F16.gguf")), ("x-MXFP4.gguf",)),
    ],
)
def test_the_files_meant(model: ModelSource, expected: tuple[str, ...]) -> None:
    assert LlamaCppBackend().select_files(model) == expected


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (source(("a.txt",)), "holds no GGUF model; it holds: a.txt"),
        (source(()), "holds no GGUF model; it holds: nothing"),
        (source(("mmproj-f16.gguf",)), "holds no GGUF model"),
        (
            source(("alpha.gguf", "beta.gguf")),
            r"several GGUF models.*alpha.gguf, beta.gguf.*--gguf",
        ),
        (source(("a-Q4_K_M.gguf", "b-Q4_K_M.gguf")), "several.*a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (source(QUANTS, "Q5_K_M"), "no GGUF called Q5_K_M; it has: model-BF16.gguf, .*model-Q2_K"),
        (source(QUANTS, "Q4"), "no GGUF called Q4;"),
        (source(("a-Q8_0.gguf", "b-Q8_0.gguf"), "Q8_0"), "several"),
        (source(QUANTS, gguf_file="other.gguf"), "no file other.gguf; it has: model-BF16.gguf"),
        (source(("x/m.gguf", "y/m.gguf"), gguf_file="m.gguf"), "several"),
        (source(SPLIT[:1] + SPLIT[2:]), "split into 3 files, but part 2 is missing"),
        (source(tuple(f"{n:02d}.txt" for n in range(30))), r"19\.txt and 10 more"),
    ],
)
def test_what_is_not_clear_is_refused(model: ModelSource, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        LlamaCppBackend().select_files(model)


def test_a_local_file_is_itself() -> None:
    model = ModelSource(model_id="/m/x.gguf", files=("x.gguf",), path=__file__)
    assert LlamaCppBackend().select_files(model) == ("x.gguf",)


def test_supports() -> None:
    backend = LlamaCppBackend()
    assert backend.supports(source(QUANTS)) == Native()
    safetensors = backend.supports(source(("model.safetensors", "config.json")))
    assert isinstance(safetensors, Unsupported)
    assert "safetensors" in safetensors.reason
    assert "llama.cpp reads GGUF" in safetensors.reason
    nothing = backend.supports(source(("README.md", "mmproj-a.gguf")))
    assert nothing == Unsupported(reason="o/m holds no GGUF file")
