import json

import pytest
from backplane_core.backend import ModelSource
from backplane_core.errors import ModelError, SetupError
from backplane_launcher.credentials import check_certificate, read_keys
from backplane_launcher.hub import HubModel
from backplane_launcher.local_path import local_path
from backplane_launcher.model_source import DEMO_MODEL_ID, HubId, from_folder, locate
from backplane_launcher.settings import LaunchSettings

from .documents import server_told


def find(model_id, **options):
    return locate(model_id, **{"revision": None, "gguf_file": None, **options})


def test_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("x")
    found = find(str(tmp_path), gguf_file="sub/a.gguf")
    assert found == ModelSource(
        model_id=str(tmp_path),
        files=("config.json", "sub/a.gguf"),
        path=str(tmp_path),
        gguf_file="sub/a.gguf",
        config={"model_type": "llama"},
    )


def test_a_folder_with_a_variant(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    found = find(f"{tmp_path}:Q4_K_M")
    assert (found.path, found.variant) == (str(tmp_path), "Q4_K_M")


def test_a_file_keeps_its_name_though_it_is_a_link(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"GGUF")
    link = tmp_path / "model.gguf"
    link.symlink_to(blob)
    found = find(str(link))
    assert (found.files, found.path) == (("model.gguf",), str(link))


def test_the_demo_model():
    for model_id in (None, DEMO_MODEL_ID):
        found = find(model_id)
        assert found.model_id == DEMO_MODEL_ID
        assert any(name.endswith(".gguf") for name in found.files)


def test_an_id_for_a_backend_that_makes_its_model():
    assert find("echo:hello") == ModelSource(model_id="echo:hello")
    assert find("echo:") == ModelSource(model_id="echo:")


@pytest.mark.parametrize(
    ("model_id", "repository", "variant"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name:Q4_K_M", "owner/name", "Q4_K_M"),
        ("gpt2", "gpt2", None),
    ],
)
def test_hub_ids(model_id, repository, variant):
    found = find(model_id, revision="v1", gguf_file="x.gguf")
    assert found == HubId(
        model_id=model_id,
        repository=repository,
        variant=variant,
        revision="v1",
        gguf_file="x.gguf",
    )


@pytest.mark.parametrize(
    "model_id", ["/no/such/folder", "./nothing", "~/nothing-here", "some.gguf", "a/b/c", "a b", ""]
)
def test_neither_here_nor_on_the_hub(model_id):
    with pytest.raises(ModelError, match="neither a file or folder here nor a Hub id") as caught:
        find(model_id)
    assert "owner/name" in caught.value.remedy


def test_a_broken_configuration(tmp_path):
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ("model_id", "name", "variant"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name:Q4_K_M", "owner/name:Q4_K_M", "Q4_K_M"),
        (None, "weights", None),
    ],
)
def test_a_folder_that_stands_in_for_the_hub(tmp_path, model_id, name, variant):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF")
    found = from_folder(str(folder), model_id, gguf_file="a.gguf")
    assert (found.model_id, found.variant) == (name, variant)
    assert (found.path, found.files, found.gguf_file) == (str(folder), ("a.gguf",), "a.gguf")


def test_what_stands_in_for_the_hub_must_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ModelError, match=f"--weights-cache-override {path} is no folder"):
            from_folder(str(path), "owner/name", gguf_file=None)


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "~nobody-of-that-name"])
def test_a_home_that_nobody_has(tmp_path, text):
    (tmp_path / "key").touch()
    for use in (
        lambda: local_path(text),
        lambda: find(text),
        lambda: from_folder(text, None, gguf_file=None),
        lambda: read_keys(text),
        lambda: check_certificate(text, str(tmp_path / "key")),
        lambda: check_certificate(str(tmp_path / "key"), text),
        lambda: server_told(LaunchSettings(tls_cert_file=text)),
        lambda: HubModel(find("a/b"), {}, cache=text),
    ):
        with pytest.raises(SetupError, match=f"{text} names the home of a user who is not here"):
            use()


def test_a_home_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x") == tmp_path / "x"
    assert local_path("x/~/y").parts == ("x", "~", "y")


def test_what_no_file_could_be_called(tmp_path):
    for use in (
        lambda: find("a" * 300),
        lambda: from_folder("a" * 300, None, gguf_file=None),
    ):
        with pytest.raises(ModelError, match="File name too long") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert from_folder(str(tmp_path), "a" * 300, gguf_file=None).model_id == "a" * 300
