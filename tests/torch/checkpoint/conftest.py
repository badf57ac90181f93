"""Saved models, made once: tests that spoil one copy it first."""

from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from tests.torch.checkpoint import checkpoints


@pytest.fixture(scope="session", autouse=True)
def no_progress_bars() -> None:
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    checkpoints.save(checkpoints.llama, folder)
    return folder


@pytest.fixture(scope="session")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    checkpoints.save(checkpoints.llama, folder, shards=checkpoints.SMALL_SHARDS)
    return folder
