"""Where adapters come from, and which of a repository's or a folder's files they are."""

from pathlib import Path

import pytest
from backplane_core.errors import ModelError
from backplane_launcher.adapters import bring_adapters
from backplane_launcher.settings import LaunchSettings

from .hub_server import hub_here

REPO = "someone/lora"
FILES = {
    "lora-q8_0.gguf": b"8",
    "lora-q4_0.gguf": b"4",
    "lora-f16.gguf": b"16",
    "adapter_config.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch):
    with hub_here(monkeypatch, REPO, FILES) as server:
        yield server


def bring(tmp_path, *texts):
    settings = LaunchSettings(lora_adapters=texts, huggingface_hub_cache=str(tmp_path / "cache"))
    return bring_adapters(settings, {}, lambda *report: None)


def test_a_variant_is_one_file_of_the_repository(hub, tmp_path):
    bring(tmp_path, REPO)  # the whole is in the cache, side by side
    hub.requests.clear()
    (adapter,) = bring(tmp_path, f"mine={REPO}:Q8_0")
    assert adapter.name == "mine"
    assert Path(adapter.path).read_bytes() == b"8"
    (other,) = bring(tmp_path / "elsewhere", f"{REPO}:f16@v1")
    assert (other.name, Path(other.path).read_bytes()) == (f"{REPO}:f16", b"16")
    assert hub.gets("lora-f16.gguf") == 1
    assert hub.gets("lora-q8_0.gguf") == hub.gets("lora-q4_0.gguf") == 0
    assert f"GET /api/models/{REPO}/revision/v1" in hub.requests


def test_a_variant_is_one_file_of_a_folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (adapter,) = bring(tmp_path, f"mine={tmp_path}:Q4_0")
    assert adapter.path == str(tmp_path / "lora-q4_0.gguf")
    (whole,) = bring(tmp_path, f"mine={tmp_path}")
    assert whole.path == str(tmp_path)


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("Q9", "has no GGUF called Q9; it has: lora-f16.gguf, lora-q4_0.gguf, lora-q8_0.gguf"),
        ("lora", "has several GGUF files called lora: lora-f16.gguf, lora-q4_0.gguf, "),
    ],
)
def test_a_variant_that_is_not_one(hub, tmp_path, variant, sentence):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    for origin in (REPO, tmp_path):
        with pytest.raises(ModelError, match=f"adapter {origin}:{variant} {sentence}") as caught:
            bring(tmp_path, f"mine={origin}:{variant}")
        assert "after the colon" in caught.value.remedy
    assert hub.gets(".gguf") == 0


def test_an_at_sign_in_a_path_never_makes_it_another_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("data/x", "data/x@2024/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "adapter.gguf").touch()
    for origin in (tmp_path / "data/x@2024/a", "./data/x@2024/a", "data/x@2024/a"):
        (adapter,) = bring(tmp_path, f"mine={origin}")
        assert adapter.path == str(tmp_path / "data/x@2024/a")
    with pytest.raises(ModelError, match="adapter data/x lies here and has no revisions") as caught:
        bring(tmp_path, "mine=data/x@2025")
    assert "./" in caught.value.remedy
    with pytest.raises(ModelError, match="neither a file or folder here"):
        bring(tmp_path, f"mine={tmp_path}/data/x@2025")
