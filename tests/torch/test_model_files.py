"""Which files are taken, for the repositories one meets."""

import pytest
from backplane_core.backend import ModelSource
from backplane_core.errors import ModelError
from backplane_torch.model_files import (
    Weights,
    choose_weights,
    parts_of,
    select_files,
    weights_exist,
)
from hypothesis import given
from hypothesis import strategies as st


def parts(stem: str, count: int, suffix: str = ".safetensors") -> tuple[str, ...]:
    return tuple(f"{stem}-{part:05d}-of-{count:05d}{suffix}" for part in range(1, count + 1))


INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
SHARDED = parts("model", 3)
SHARDED_BIN = parts("pytorch_model", 2, ".bin")
OTHERS = (
    *("README.md", "LICENSE", "model.onnx", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"),
    *("original/consolidated.00.pth", "original/params.json", "onnx/model.safetensors"),
    *("training_args.bin", "optimizer.bin", "optimizer.safetensors", "adapter_model.safetensors"),
    *("adapter_config.json", "scheduler.pt", "consolidated.safetensors", "gguf/model-q4_0.gguf"),
)
BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/rag.jinja"),
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("model.safetensors",), Weights(files=("model.safetensors",))),
        ((*SHARDED, INDEX), Weights(files=SHARDED, index=INDEX)),
        ((INDEX, *reversed(SHARDED)), Weights(files=SHARDED, index=INDEX)),
        (SHARDED, Weights(files=SHARDED)),
        (("model.safetensors", INDEX, *SHARDED), Weights(files=("model.safetensors",))),
        (("model.safetensors", SHARDED[0]), Weights(files=("model.safetensors",))),
        (("pytorch_model.bin", "model.safetensors"), Weights(files=("model.safetensors",))),
        ((*SHARDED, INDEX, *SHARDED_BIN, BIN_INDEX), Weights(files=SHARDED, index=INDEX)),
        (("pytorch_model.bin",), Weights(files=("pytorch_model.bin",))),
        ((*SHARDED_BIN, BIN_INDEX), Weights(files=SHARDED_BIN, index=BIN_INDEX)),
        (("tiny.safetensors",), Weights(files=("tiny.safetensors",))),
        (("model.fp16.safetensors", "model.safetensors"), Weights(files=("model.safetensors",))),
        (parts("model", 1), Weights(files=parts("model", 1))),
    ],
)
def test_the_weights_meant(files: tuple[str, ...], expected: Weights) -> None:
    assert choose_weights("o/m", (*OTHERS, *files)) == expected
    assert expected.pickled == expected.files[0].endswith(".bin")
    assert weights_exist((*OTHERS, *files))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "o/m holds no weights in a format of transformers; it holds: LICENSE, README"),
        (SHARDED[::2], "o/m: model.safetensors is split into 3 files, but part 2 is missing"),
        (SHARDED[1:2], "but part 1, 3 is missing"),
        (("a.safetensors", "b.safetensors"), "several sets of weights: a.safetensors, b.safet"),
        ((*SHARDED, *parts("model", 2)), "several sets of weights: model-00001-of-00002.safet"),
        (("model.bin",), "holds no weights in a format of transformers"),
    ],
)
def test_what_is_not_clear_is_refused(files: tuple[str, ...], says: str) -> None:
    with pytest.raises(ModelError, match=says) as raised:
        choose_weights("o/m", (*OTHERS, *files))
    assert raised.value.remedy


def test_a_repository_without_weights() -> None:
    assert not weights_exist(OTHERS)
    with pytest.raises(ModelError, match=r"00\.txt.*19\.txt and 10 more"):
        choose_weights("o/m", [f"{number:02d}.txt" for number in range(30)])
    with pytest.raises(ModelError, match="it holds: nothing"):
        choose_weights("o/m", ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", Weights(files=("model.safetensors",))),
        ("odd.bin", Weights(files=("odd.bin",))),
        (SHARDED[2], Weights(files=SHARDED, index=INDEX)),
        (SHARDED_BIN[0], Weights(files=SHARDED_BIN)),
    ],
)
def test_a_file_that_is_named(name: str, expected: Weights) -> None:
    beside = (*OTHERS, "model.safetensors", *SHARDED, INDEX, *parts("model", 4), *SHARDED_BIN)
    assert parts_of(name, beside) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("config.json", "config.json is no safetensors file"),
        (SHARDED[0], f"{SHARDED[0]}: model.safetensors is split into 3 files, but part 3 is miss"),
    ],
)
def test_a_file_that_is_named_but_is_not_all(name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parts_of(name, (*SHARDED[:2], "model.safetensors", "config.json"))


def _source(*files: str, **fields: object) -> ModelSource:
    return ModelSource(model_id="o/m", files=(*OTHERS, *files), **fields)


def test_what_is_downloaded() -> None:
    code = ("modeling_odd.py", "sub/ops.py")
    model = _source(*code, *BESIDE, *SHARDED, INDEX, *SHARDED_BIN, BIN_INDEX)
    assert select_files(model) == (*SHARDED, INDEX, *BESIDE)


def test_code_is_downloaded_where_the_configuration_refers_to_it() -> None:
    files = ("config.json", "modeling_odd.py", "sub/ops.py", "model.safetensors")
    assert select_files(_source(*files)) == ("model.safetensors", "config.json")
    model = _source(*files, config={"auto_map": {"AutoConfig": "odd.Odd"}})
    assert set(select_files(model)) == set(files)


@pytest.mark.parametrize(
    "vocabulary",
    [
        ("tokenizer.model",),
        ("spiece.model", "tokenizer_config.json"),
        ("vocab.json", "merges.txt", "added_tokens.json"),
        ("sentencepiece.bpe.model",),
        ("qwen.tiktoken",),
        ("tekken.json",),
    ],
)
def test_vocabularies_of_every_kind_are_downloaded(vocabulary: tuple[str, ...]) -> None:
    assert select_files(_source("model.safetensors", *vocabulary)) == (
        "model.safetensors",
        *vocabulary,
    )


@pytest.mark.parametrize("fields", [{"variant": "Q4_K_M"}, {"gguf_file": "m-Q4_K_M.gguf"}])
def test_a_variant_is_another_backends(fields: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"Q4_K_M.* names a GGUF file") as raised:
        select_files(_source("model.safetensors", **fields))
    assert "--backend llamacpp" in str(raised.value.remedy)


@given(st.lists(st.sampled_from((*OTHERS, *SHARDED, *SHARDED_BIN, INDEX, "model.safetensors"))))
def test_of_any_files_one_whole_set_is_taken_or_none(files: list[str]) -> None:
    try:
        chosen = choose_weights("o/m", files)
    except ModelError:
        assert not {"model.safetensors"} <= set(files)
        assert not set(SHARDED) <= set(files)
        return
    assert set(chosen.files) <= set(files)
    assert chosen.files in {("model.safetensors",), SHARDED, SHARDED_BIN}
    assert chosen.index in {None, INDEX}
    assert (chosen.index is not None) == (INDEX in files and chosen.files == SHARDED)
