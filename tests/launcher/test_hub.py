import errno
import json
import socket
from pathlib import Path

import pytest
from backplane_core.errors import ModelError
from backplane_launcher.hub import HubModel
from backplane_launcher.model_source import HubId
from huggingface_hub import constants, file_download

from .hub_server import COMMIT, hub_here

REPO = "someone/small"
FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "small.Q4.gguf": b"GGUF" + bytes(range(256)) * 400,
    "small.Q8.gguf": b"GGUF" + bytes(range(256)) * 800,
    "README.md": b"# small",
}


@pytest.fixture
def hub(monkeypatch):
    with hub_here(monkeypatch, REPO, FILES) as server:
        yield server


class Heard(list):
    def __call__(self, stage, fraction=None, detail=""):
        self.append((stage, fraction, detail))


def model(cache, *, revision=None, environ=None, pauses=None, repository=REPO):
    hub_id = HubId(
        model_id=repository, repository=repository, variant=None, revision=revision, gguf_file=None
    )
    wait = (pauses if pauses is not None else []).append
    return HubModel(hub_id, environ or {}, cache=str(cache), wait=wait)


def test_lists_then_downloads_only_what_was_selected(hub, tmp_path):
    getter = model(tmp_path)
    source = getter.list_files()
    assert source.files == tuple(sorted(FILES))
    assert source.config == {"model_type": "llama"}
    assert source.path is None
    heard = Heard()
    local = getter.download(source, ["small.Q4.gguf"], heard)
    assert local.files == ("small.Q4.gguf",)
    assert local.revision == COMMIT
    assert (Path(local.path) / "small.Q4.gguf").read_bytes() == FILES["small.Q4.gguf"]
    assert hub.gets("small.Q8.gguf") == 0
    assert hub.gets("README.md") == 0
    assert {stage for stage, _, _ in heard} == {"download"}
    assert heard[0][1] == 0.0
    assert heard[-1][1] == 1.0
    assert "small.Q4.gguf (1/1)" in heard[0][2]


def test_a_second_start_downloads_nothing(hub, tmp_path):
    for _ in range(2):
        getter = model(tmp_path)
        getter.download(getter.list_files(), ["small.Q4.gguf"], Heard())
    assert hub.gets("small.Q4.gguf") == 1
    assert hub.gets("config.json") == 1


def test_offline_serves_from_the_cache(hub, tmp_path, monkeypatch):
    getter = model(tmp_path)
    first = getter.download(getter.list_files(), ["small.Q4.gguf"], Heard())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    getter = model(tmp_path)
    source = getter.list_files()
    assert source.files == ("config.json", "small.Q4.gguf")
    assert source.config == {"model_type": "llama"}
    assert getter.download(source, ["small.Q4.gguf"], Heard()).path == first.path
    assert hub.requests == []


def test_offline_and_not_in_the_cache(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"not in the cache, and HF_HUB_OFFLINE .*\(unset"):
        model(tmp_path).list_files()


def test_an_unreachable_hub_is_no_obstacle_to_a_cached_model(hub, tmp_path):
    getter = model(tmp_path)
    getter.download(getter.list_files(), ["small.Q4.gguf"], Heard())
    hub.statuses = [503] * 100
    source = model(tmp_path).list_files()
    assert "small.Q4.gguf" in source.files


def test_a_cut_connection_resumes_where_it_broke(hub, tmp_path, monkeypatch):
    # The client keeps whole chunks only, so the break is rounded down to one.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut["small.Q8.gguf"] = 1
    getter = model(tmp_path)
    local = getter.download(getter.list_files(), ["small.Q8.gguf"], Heard())
    assert (Path(local.path) / "small.Q8.gguf").read_bytes() == FILES["small.Q8.gguf"]
    assert hub.ranges == ["bytes=102000-"]


def test_a_connection_cut_for_good_is_one_line_with_the_remedy(hub, tmp_path):
    hub.cut["small.Q8.gguf"] = 10_000
    hub.repositories[REPO].files["small.Q8.gguf"] = b"tiny"  # few halvings until nothing comes
    getter = model(tmp_path)
    source = getter.list_files()
    with pytest.raises(ModelError, match="broke off") as caught:
        getter.download(source, ["small.Q8.gguf"], Heard())
    assert caught.value.remedy == "check the network (and HTTPS_PROXY), then start again"
    assert "\n" not in str(caught.value)


def test_a_busy_hub_is_asked_again(hub, tmp_path):
    hub.statuses = [503, 502]
    pauses = []
    assert model(tmp_path, pauses=pauses).list_files().files
    assert pauses == [1.0, 2.0]


def test_a_busy_hub_is_given_up_after_five_tries(hub, tmp_path):
    hub.statuses = [503] * 100
    pauses = []
    with pytest.raises(ModelError, match=r"is not answering .*status 503") as caught:
        model(tmp_path, pauses=pauses).list_files()
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert "HF_HUB_OFFLINE=1" in caught.value.remedy


def test_a_name_that_does_not_resolve_is_tried_twice(hub, tmp_path, monkeypatch):
    asked = []

    def nowhere(*args, **options):
        asked.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    pauses = []
    with pytest.raises(ModelError) as caught:
        model(tmp_path, repository="nope", pauses=pauses).list_files()
    assert (len(asked), pauses) == (2, [1.0])
    assert "the Hub's name does not resolve" in str(caught.value)
    assert "there is no file or folder nope here" in str(caught.value)
    with pytest.raises(ModelError) as caught:
        model(tmp_path, pauses=pauses).list_files()
    assert "file or folder" not in str(caught.value)


def test_not_found(hub, tmp_path):
    pauses = []
    with pytest.raises(ModelError, match="the Hub knows no model someone/else") as caught:
        model(tmp_path, repository="someone/else", pauses=pauses).list_files()
    assert "check the spelling" in caught.value.remedy
    assert "HF_TOKEN" in caught.value.remedy
    assert pauses == []


def test_no_such_revision(hub, tmp_path):
    with pytest.raises(ModelError, match="has no revision v9"):
        model(tmp_path, revision="v9").list_files()
    assert model(tmp_path, revision="v1").list_files().files


def test_gated_without_and_with_a_token(hub, tmp_path):
    hub.repositories[REPO].gated = True
    hub.repositories[REPO].token = "hf_right"  # noqa: S105 - a test
    with pytest.raises(ModelError, match="is gated") as caught:
        model(tmp_path).list_files()
    assert f"https://huggingface.co/{REPO}" in caught.value.remedy
    assert "set HF_TOKEN" in caught.value.remedy
    with pytest.raises(ModelError, match="is gated") as caught:
        model(tmp_path, environ={"HF_TOKEN": "hf_wrong"}).list_files()
    assert "wait for approval" in caught.value.remedy
    assert model(tmp_path, environ={"HF_TOKEN": "hf_right"}).list_files().config


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"])
def test_the_token_is_sent(hub, tmp_path, variable):
    model(tmp_path, environ={variable: "hf_secret"}).list_files()
    assert hub.tokens == {"hf_secret"}


def test_no_room_is_seen_before_the_download(hub, tmp_path):
    hub.repositories[REPO].claimed_sizes["small.Q8.gguf"] = 10**16
    getter = model(tmp_path)
    source = getter.list_files()
    with pytest.raises(ModelError, match=r"needs 10000000\.0 GB") as caught:
        getter.download(source, ["small.Q8.gguf"], Heard())
    assert "--huggingface-hub-cache" in caught.value.remedy
    assert hub.gets("small.Q8.gguf") == 0


def test_a_disk_that_fills_up_on_the_way(hub, tmp_path, monkeypatch):
    getter = model(tmp_path)
    source = getter.list_files()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/blob")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(ModelError, match="the disk is full") as caught:
        getter.download(source, ["small.Q8.gguf"], Heard())
    assert "--huggingface-hub-cache" in caught.value.remedy


def test_a_broken_configuration(hub, tmp_path):
    hub.repositories[REPO].files["config.json"] = b"{not json"
    with pytest.raises(ModelError, match="cannot be read as a model's configuration"):
        model(tmp_path).list_files()
