"""LoRA adapters: what they compute, whose they are, and what is said of files that are none."""

from pathlib import Path

import numpy as np
import pytest
from backplane_core.batching.executor import ScheduledBatch, ScheduledSequence
from backplane_core.errors import AdapterError
from backplane_core.messages import SequenceDelta
from backplane_llamacpp.adapters import gguf_file
from backplane_llamacpp.executor import LlamaCppExecutor
from backplane_llamacpp.runner import LlamaCppRunner

from tests.llamacpp import tiny_gguf, tiny_lora
from tests.llamacpp.conftest import MakeExecutor, MakeRunner
from tests.llamacpp.reference_llama import ReferenceLlama
from tests.llamacpp.test_executor import PROMPT, sequence
from tests.llamacpp.test_runner import NEAR_TIE, drain, lone, submit

TOLERANCE = 0.03  # of logits, under a float16 cache


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: tiny_lora.write(folder / f"{name}.gguf", seed=seed)
        for seed, name in enumerate(("one", "two"))
    }


def compute(executor: LlamaCppExecutor, seq_id: int, adapter: str | None) -> np.ndarray:
    one = ScheduledSequence(
        seq_id=seq_id, sequence=sequence(PROMPT), start=0, token_ids=PROMPT, sample=True
    )
    keys = () if adapter is None else (executor._adapters.key_of(adapter),)
    executor.execute(ScheduledBatch(sequences=[one], adapters=keys))
    executor.release(seq_id)
    return executor._context.logits(1)[0].copy()


def test_logits_are_those_of_the_weights_and_what_the_adapter_adds(
    make_executor: MakeExecutor, adapters: dict[str, Path]
) -> None:
    executor = make_executor()
    for name, path in adapters.items():
        executor._adapters.load(name, path)
    expected = {
        None: ReferenceLlama().logits(PROMPT)[-1],
        "one": ReferenceLlama(deltas=tiny_lora.deltas(0)).logits(PROMPT)[-1],
        "two": ReferenceLlama(deltas=tiny_lora.deltas(1)).logits(PROMPT)[-1],
    }
    # There and back again, so that nothing of the last batch's adapter stays.
    for seq_id, name in enumerate([None, "one", "two", "one", None]):
        assert np.allclose(compute(executor, seq_id, name), expected[name], atol=TOLERANCE), name
    assert np.abs(expected["one"] - expected[None]).max() > 20 * TOLERANCE
    assert np.abs(expected["one"] - expected["two"]).max() > 20 * TOLERANCE


def test_requests_side_by_side_keep_their_adapters(
    make_runner: MakeRunner,
    adapters: dict[str, Path],
) -> None:
    runner = make_runner()
    for name, path in adapters.items():
        runner.load_adapter(name, str(path))
    alone = {name: lone(runner, PROMPT, adapter=name) for name in (None, "one", "two")}
    assert len({tuple(output) for output in alone.values()}) == 3
    ids = {name: submit(runner, PROMPT, adapter=name) for name in ("two", None, "one")}
    outputs = drain(runner)
    assert {name: outputs[request_id, 0] for name, request_id in ids.items()} == alone


def test_a_running_request_outlives_its_adapters_name(
    make_runner: MakeRunner,
    adapters: dict[str, Path],
) -> None:
    runner = make_runner()
    runner.load_adapter("one", str(adapters["one"]))
    expected = lone(runner, PROMPT, adapter="one")
    request_id = submit(runner, PROMPT, adapter="one")
    deltas: list[SequenceDelta] = [*runner.poll(0.0).deltas]
    runner.unload_adapter("one")
    with pytest.raises(AdapterError, match="no adapter one is loaded"):
        submit(runner, PROMPT, adapter="one")
    # What comes under the same name meanwhile is another's; nor is its cache the old one's.
    runner.load_adapter("one", str(adapters["two"]))
    other = submit(runner, PROMPT, adapter="one")
    outputs = drain(runner)
    first = [token_id for delta in deltas for token_id in delta.token_ids]
    assert first + outputs[request_id, 0] == expected
    reference, gap = ReferenceLlama(deltas=tiny_lora.deltas(1)).greedy(PROMPT, 8)
    assert gap > NEAR_TIE
    assert outputs[other, 0][:8] == reference
    runner.poll(0.0)
    assert not runner._adapters.has_unloaded  # the old one is freed


def test_names_are_unique_and_known(
    make_runner: MakeRunner,
    adapters: dict[str, Path],
) -> None:
    runner: LlamaCppRunner = make_runner()
    assert runner.info.capabilities.adapters
    runner.load_adapter("one", str(adapters["one"]))
    with pytest.raises(AdapterError, match="adapter one is loaded already"):
        runner.load_adapter("one", str(adapters["two"]))
    runner.unload_adapter("one")
    with pytest.raises(AdapterError, match="no adapter one is loaded"):
        runner.unload_adapter("one")
    runner.load_adapter("one", str(adapters["one"]))


def test_a_folder_stands_for_its_only_gguf_file(tmp_path: Path, adapters: dict[str, Path]) -> None:
    data = adapters["one"].read_bytes()
    (tmp_path / "README.md").write_text("an adapter")
    (tmp_path / "lora.gguf").write_bytes(data)
    assert gguf_file("a", tmp_path) == tmp_path / "lora.gguf"
    (tmp_path / "other.gguf").write_bytes(data)
    with pytest.raises(AdapterError, match=r"several GGUF files: lora\.gguf, other\.gguf"):
        gguf_file("a", tmp_path)


def test_pefts_form_is_told_how_to_become_gguf(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    for path in (tmp_path, weights):
        with pytest.raises(AdapterError, match="adapter law is in PEFT's form") as refused:
            gguf_file("law", path)
        assert "convert_lora_to_gguf" in str(refused.value.remedy)
        assert str(tmp_path) not in str(refused.value)


def test_what_is_no_adapter_of_this_model_is_refused(
    make_runner: MakeRunner,
    tmp_path: Path,
) -> None:
    runner = make_runner()
    (tmp_path / "text.gguf").write_text("GGML")
    (tmp_path / "empty").mkdir()
    broken = tiny_lora.write(tmp_path / "broken.gguf", seed=3)
    broken.write_bytes(broken.read_bytes()[:-200])
    cases = {
        tmp_path / "nowhere.gguf": "no file or folder at its path",
        tmp_path / "empty": "no GGUF file at its path",
        tmp_path / "text.gguf": "no GGUF file at its path",
        broken: "cannot load adapter a from broken.gguf",
        tiny_gguf.write(tmp_path / "model.gguf"): "expect general.type to be 'adapter'",
        tiny_lora.write(tmp_path / "qwen.gguf", seed=1, architecture="qwen2"): "arch mismatch",
        tiny_lora.write(tmp_path / "narrow.gguf", seed=1, width=16): "incorrect shape",
        tiny_lora.write_activated(tmp_path / "alora.gguf"): "activated LoRA",
    }
    for path, says in cases.items():
        with pytest.raises(AdapterError, match=says):
            runner.load_adapter("a", str(path))
    with pytest.raises(AdapterError, match="no adapter a is loaded"):
        submit(runner, PROMPT, adapter="a")
    assert lone(runner, PROMPT)  # and nothing of it stays
