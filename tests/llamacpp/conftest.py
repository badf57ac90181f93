"""Tiny models made on the spot, and contexts over them that tests may fill and break."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.batching.executor import ExecutorTraits, MemoryLayout
from backplane_llamacpp.adapters import AdapterShelf
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.executor import LlamaCppExecutor
from backplane_llamacpp.loading import load_model
from backplane_llamacpp.native.adapter import NativeAdapter
from backplane_llamacpp.native.context import ContextOptions, NativeContext
from backplane_llamacpp.native.model import NativeModel
from backplane_llamacpp.runner import LlamaCppRunner
from backplane_llamacpp.settings import LlamaCppSettings
from backplane_llamacpp.step_sampler import StepSampler

from tests.llamacpp import tiny_gguf

MakeExecutor = Callable[..., LlamaCppExecutor]
MakeRunner = Callable[..., LlamaCppRunner]


def ignore_progress(stage: str, fraction: float | None = None, detail: str = "") -> None:
    """A progress sink for those who do not look."""


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="session")
def bpe_path(model_folder: Path) -> Path:
    return tiny_gguf.write(model_folder / "tiny-bpe.gguf")


@pytest.fixture(scope="session")
def spm_path(model_folder: Path) -> Path:
    return tiny_gguf.write(model_folder / "tiny-spm.gguf", vocabulary="spm")


@pytest.fixture(scope="session")
def split_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny_gguf.write_split(tmp_path_factory.mktemp("split"))


@pytest.fixture(scope="session")
def bpe_model(bpe_path: Path) -> Iterator[NativeModel]:
    model = load_model(bpe_path, LlamaCppSettings(), ignore_progress)
    yield model
    model.close()


@pytest.fixture(scope="session")
def spm_model(spm_path: Path) -> Iterator[NativeModel]:
    model = load_model(spm_path, LlamaCppSettings(), ignore_progress)
    yield model
    model.close()


@pytest.fixture
def make_executor(bpe_model: NativeModel) -> Iterator[MakeExecutor]:
    made: list[LlamaCppExecutor] = []

    def make(
        *,
        cache_tokens: int = 1024,
        sequences: int = 8,
        batch: int = 64,
        scored: int = 64,
        suppressed: list[int] | None = None,
        adapters: AdapterShelf | None = None,
    ) -> LlamaCppExecutor:
        context = NativeContext(
            bpe_model,
            ContextOptions(
                n_ctx=cache_tokens,
                n_batch=batch,
                n_ubatch=min(batch, 32),
                n_seq_max=sequences,
                max_scored_tokens=scored,
                n_threads=1,
                n_threads_batch=1,
            ),
        )
        traits = ExecutorTraits(
            layout=MemoryLayout.CELLS,
            max_sequences=sequences,
            cache_tokens=cache_tokens,
            max_batch_tokens=batch,
            slot_tokens=512,
            adapters_per_batch=1,
            max_scored_tokens=scored,
        )
        executor = LlamaCppExecutor(
            context,
            traits=traits,
            sampler=StepSampler(bpe_model.n_vocab, suppressed or [], context.num_threads),
            adapters=adapters or AdapterShelf(functools.partial(NativeAdapter, bpe_model)),
        )
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.close()


@pytest.fixture
def make_runner(bpe_path: Path) -> Iterator[MakeRunner]:
    made: list[LlamaCppRunner] = []

    def make(engine: dict[str, Any] | None = None, **settings: Any) -> LlamaCppRunner:
        spec = RunnerSpec(
            model=ModelSource(model_id="o/tiny", path=str(bpe_path), revision="main"),
            engine=EngineSettings(**engine or {}),
            settings={"ctx_size": 2048, "max_sequences": 8} | settings,
        )
        runner = LlamaCppBackend().create_runner(spec, ignore_progress)
        assert isinstance(runner, LlamaCppRunner)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.close()
