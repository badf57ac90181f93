"""The commands beside serving, as processes: what they print, and their exit codes."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread

import pytest
from backplane_core.errors import SetupError
from backplane_launcher.schema_command import print_schema

from .hub_server import COMMIT, HubServer, Repository
from .launched import HERE

LIMIT_S = 120.0
REPO = "someone/demo"


@pytest.fixture
def run(tmp_path):
    def start(*argv, stdin=None, **environ):
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BACKPLANE_", "HF_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "backplane_launcher", *argv],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=LIMIT_S,
            check=False,
            env={
                **inherited,
                "PYTHONPATH": str(HERE / "recording_backend"),
                "BACKPLANE_EXTRA_PLUGINS": "backplane_recording",
                "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                **environ,
            },
        )

    return start


@pytest.fixture
def hub():
    with HubServer() as server:
        server.repositories[REPO] = Repository(
            files={"demo.weights": b"some words", "config.json": b"{}", "unwanted.bin": b"x"}
        )
        server.repositories["someone/lora"] = Repository(files={"adapter.gguf": b"1"})
        yield server


# ── download-weights ─────────────────────────────────────────────────────────────────────────


def test_download_weights_brings_what_the_backend_needs_and_prints_where(run, hub, tmp_path):
    argv = ("download-weights", REPO, "--backend", "recording", "--revision", "v1")
    done = run(*argv, "--lora-adapters", "someone/lora", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    model, adapter = (Path(line) for line in done.stdout.splitlines())
    assert model == tmp_path / "hf" / "hub" / "models--someone--demo" / "snapshots" / COMMIT
    assert sorted(file.name for file in model.iterdir()) == ["config.json", "demo.weights"]
    assert [file.name for file in adapter.iterdir()] == ["adapter.gguf"]
    assert "download 100%" in done.stderr
    assert hub.gets("unwanted.bin") == 0

    hub.requests.clear()
    again = run(*argv, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stdout) == (0, f"{model}\n")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (("download-weights", "--model-id", REPO), {}),
        (("download-weights",), {"MODEL_ID": REPO}),
        (("download-weights", REPO), {"MODEL_ID": "some/other"}),
        (("download-weights", REPO, "--json-output"), {}),
    ],
)
def test_download_weights_takes_the_model_by_any_name(run, hub, argv, environ):
    done = run(*argv, HF_ENDPOINT=hub.url, BACKPLANE_BACKEND="recording", **environ)
    assert done.returncode == 0, done.stderr
    assert "models--someone--demo" in done.stdout
    if "--json-output" in argv:
        assert all(json.loads(line)["message"] for line in done.stderr.splitlines())


def test_download_weights_says_what_is_wrong(run, hub):
    done = run("download-weights", "some/nothing", "--backend", "recording", HF_ENDPOINT=hub.url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: the Hub knows no model some/nothing")
    done = run("download-weights")
    assert done.returncode == 2
    assert "write backplane download-weights MODEL_ID" in done.stderr


def test_files_are_brought_where_no_device_could_run_them(run, hub):
    done = run(
        "download-weights",
        REPO,
        HF_ENDPOINT=hub.url,
        BACKPLANE_EXTRA_PLUGINS="backplane_without_device",
    )
    assert done.returncode == 0, done.stderr
    assert "taking the files that backend without_device needs" in done.stderr
    assert [file.name for file in Path(done.stdout.strip()).glob("*.weights")] == ["demo.weights"]


# ── print-schema ─────────────────────────────────────────────────────────────────────────────


def test_print_schema_prints_the_description(run):
    done = run("print-schema", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["openapi"].startswith("3.")
    assert {"/generate", "/v1/chat/completions"} <= set(document["paths"])


def test_without_the_server_print_schema_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"not installed \(pip install backplane-server\)"):
        print_schema(io.StringIO())


# ── quantize ─────────────────────────────────────────────────────────────────────────────────


def test_quantize_writes_the_file_and_shows_progress(run, hub, tmp_path):
    target = tmp_path / "out.weights"
    done = run("quantize", REPO, str(target), "--type", "UPPER", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}\n"
    assert target.read_text() == "SOME WORDS"
    assert "quantize 100% done" in done.stderr
    assert "an engine's own words" in done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (("{local}", "{old}", "--type", "upper"), 2, "exists already"),
        (("{local}", "no/folder/x", "--type", "upper"), 2, "there is no folder no/folder"),
        (("{local}", "~nobody-here/x", "--type", "upper"), 1, "the home of a user who is not here"),
        (("{local}", "{new}", "--type", "gptq"), 2, "gptq weights are not made here"),
        (("{local}", "{new}", "--type", "awq"), 2, "or make GGUF: q4_k_m, "),
        (("{local}", "{new}", "--type", "q9"), 2, "no backend makes q9 (there are: q4_k_m, "),
        (("{local}", "{new}"), 2, "--type"),
        (("{local}", "{new}", "--type", "upper", "--backend", "echo"), 1, "cannot quantize"),
        (("no/such/path/x", "{new}", "--type", "upper"), 1, "neither a file or folder here"),
        (("{local}", "{new}", "--type", "broken"), 1, "with status 9"),
    ],
)
def test_quantize_says_what_is_wrong(run, tmp_path, argv, code, sentence):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "a.weights").write_text("abc")
    (tmp_path / "old").write_text("kept")
    places = {name: str(tmp_path / name) for name in ("local", "old", "new")}
    done = run("quantize", *(word.format(**places) for word in argv))
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "old").read_text() == "kept"


def test_quantize_with_llama_cpp(run, tmp_path):
    (demo,) = [
        path
        for path in (files("backplane_launcher") / "demo_model").iterdir()
        if path.name.endswith(".gguf")
    ]
    target = tmp_path / "demo-q8.gguf"
    done = run("quantize", str(demo), str(target), "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    assert target.read_bytes()[:4] == b"GGUF"
    assert target.stat().st_size < Path(str(demo)).stat().st_size
    assert "quantize 100%" in done.stderr


# ── detect-watermark ─────────────────────────────────────────────────────────────────────────


def green_tokens(gamma: float, count: int) -> list[int]:
    """A run in which each token is green after the one before, by the definition alone."""
    from backplane_core.watermark import is_green  # noqa: PLC0415 -- what the command relies on

    tokens = [1]
    while len(tokens) < count:
        used = set(tokens)
        tokens.append(
            next(
                token
                for token in range(1000)
                if token not in used and is_green(tokens[-1], token, gamma)
            )
        )
    return tokens


class _Tokenizing(BaseHTTPRequestHandler):
    """One token for each word: the number that it is."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, asked, self.headers.get("authorization")))
        status, answer = 200, [{"id": int(word)} for word in asked["inputs"].split()]
        if self.headers.get("authorization") != "Bearer k":
            status, answer = 401, {"error": "no key"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def tokenizing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokenizing)
    server.asked = []
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_watermarked_text_is_told_by_the_servers_tokens(run, tokenizing, tmp_path):
    url = f"http://127.0.0.1:{tokenizing.server_address[1]}"
    text = " ".join(map(str, green_tokens(0.5, 60)))
    done = run("detect-watermark", "-", "--url", url, "--api-key", "k", stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("watermarked: z 7.68, p ")
    assert "59 of 59 scored tokens are green (100%, by chance 50%), of 60 tokens" in done.stdout
    ((path, asked, _),) = tokenizing.asked
    assert path == "/tokenize"
    assert asked == {"inputs": text, "add_special_tokens": False}

    plain = tmp_path / "plain.txt"
    plain.write_text(" ".join(map(str, range(200))))
    done = run("detect-watermark", str(plain), "--url", url, "--json", API_KEY="k")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["watermarked"] is False
    assert report["num_tokens"] == 200
    assert abs(report["z_score"]) < 4


@pytest.mark.parametrize(("gamma", "least"), [(0.5, 17), (0.25, 8), (0.9, 145)])
def test_a_text_too_short_to_tell_is_neither(run, tmp_path, gamma, least):
    tokens = tmp_path / "tokens.json"
    marked = green_tokens(gamma, least + 1)  # that many pairs
    tokens.write_text(json.dumps(marked[:-1]))
    argv = ("detect-watermark", str(tokens), "--tokens", "--gamma", str(gamma))
    done = run(*argv)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith(f"too short to tell (below {least} scored tokens): z ")
    done = run(*argv, "--json")
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert (report["watermarked"], report["least_scored"]) == (None, least)
    tokens.write_text(json.dumps(marked))
    assert run(*argv).returncode == 0


def test_the_share_must_be_the_one_it_was_written_with(run, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(green_tokens(0.25, 60)))
    right = run("detect-watermark", str(tokens), "--tokens", "--gamma", "0.25", "--json")
    assert right.returncode == 0
    assert json.loads(right.stdout)["num_green"] == 59
    assert run("detect-watermark", str(tokens), "--tokens", WATERMARK_GAMMA="0.25").returncode == 0


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (("x.txt",), 2, "wants either the server that made the text's tokens or the tokens"),
        (("x.txt", "--tokens", "--url", "http://x"), 2, "wants either the server"),
        (("x.txt", "--tokens"), 2, "x.txt cannot be read: No such file"),
        (("~nobody-here/x", "--tokens"), 1, "~nobody-here/x names the home of a user who is not"),
        (("x.txt", "--nope"), 2, "Unknown option"),
        (("-", "--tokens"), 2, "holds no token ids"),
        (("-", "--tokens", "--gamma", "1"), 2, "does not lie between 0 and 1"),
        (("-", "--url", "ftp://x"), 2, "is no URL"),
        (("-", "--url", "http://x:99999"), 2, "is no URL"),
        (("-", "--url", "http://127.0.0.1:1"), 1, "does not answer"),
        (("-", "--url", "{server}"), 1, "status 401: no key (give its key with --api-key)"),
    ],
)
def test_detect_watermark_says_what_is_wrong(run, tokenizing, argv, code, sentence):
    url = f"http://127.0.0.1:{tokenizing.server_address[1]}"
    done = run("detect-watermark", *(word.format(server=url) for word in argv), stdin="1 2 3")
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
