"""Who may call, and how: keys from a file, HTTPS, names to listen on. With the real server."""

import signal
import ssl
from pathlib import Path

import httpx
import pytest
from backplane_core.errors import SetupError
from backplane_launcher.credentials import check_certificate, read_keys

from .launched import Launched

PEM = Path(__file__).parents[1] / "server" / "tls"
ECHO = ("--model-id", "echo:x", "--port", "0", "--backend", "echo")
ASK = {"inputs": "hello", "parameters": {"max_new_tokens": 3}}


def status(client: httpx.Client, key: str | None, path: str = "/generate") -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    if path == "/generate":
        return client.post(path, json=ASK, headers=headers).status_code
    return client.get(path, headers=headers).status_code


def test_keys_from_everywhere_over_https(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# for the two teams\nfirst-of-file\n\n  second of file  \n#no-key\n")
    argv = (
        *ECHO,
        *("--api-key-file", str(keys)),
        *("--tls-cert-file", str(PEM / "cert.pem"), "--ssl-keyfile", str(PEM / "key.pem")),
        *("--open-routes", "metrics,v1/models"),
    )
    environ = {"PYTHONPATH": "", "API_KEY": "of-the-environment"}
    with Launched(tmp_path, *argv, environ=environ) as launched:
        url = launched.wait_for_line(r"Connected: (https://\S+)")[1]
        context = ssl.create_default_context(cafile=PEM / "cert.pem")
        with httpx.Client(base_url=url, verify=context, timeout=30.0, trust_env=False) as client:
            for key in ("first-of-file", "second of file", "of-the-environment"):
                assert status(client, key) == 200
            for key in (None, "#no-key", "no-key", "FIRST-OF-FILE", "# for the two teams"):
                assert status(client, key) == 401
            assert status(client, None, "/metrics") == status(client, None, "/v1/models") == 200
            assert status(client, None, "/info") == 401
        for pid in launched.pids():
            told = (
                Path(f"/proc/{pid}/cmdline").read_bytes()
                + Path(f"/proc/{pid}/environ").read_bytes()
            )
            assert b"of-file" not in told
            assert b"of-the-environment" not in told
        assert "of-file" not in launched.output
        assert "without --api-key" not in launched.output
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a\nb\n", ("a", "b")),
        ("\ufeffa", ("a",)),
        ("  a b \r\n# c\n\n#\nd#e", ("a b", "d#e")),
    ],
)
def test_keys_of_a_file(tmp_path, text, keys):
    file = tmp_path / "keys"
    file.write_bytes(text.encode())
    assert read_keys(str(file)) == keys


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"# all out\n\n", "holds no key"),
        (b"", "holds no key"),
        (b"\xff\xfe", "it is not text in UTF-8"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_without_keys_opens_no_server(tmp_path, content, sentence):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SetupError, match=sentence):
        read_keys(str(file))
    with Launched(tmp_path, *ECHO, "--api-key-file", str(file)) as launched:
        assert launched.wait() == 1
    assert launched.lines[-1].startswith(f"Error: --api-key-file {file} ")


@pytest.mark.parametrize(
    ("cert", "key", "sentence"),
    [
        ("cert.pem", "other_key.pem", "cannot be used together: key values mismatch"),
        ("cert.pem", "locked_key.pem", "cannot be used together: the key has a password"),
        ("cert.pem", "README.md", "cannot be used together"),
        ("README.md", "key.pem", "cannot be used together"),
        ("none.pem", "key.pem", "--tls-cert-file .*none.pem cannot be read: No such file"),
        ("cert.pem", "none.pem", "--tls-key-file .*none.pem cannot be read: No such file"),
    ],
)
def test_certificates_that_no_server_could_use(cert, key, sentence):
    with pytest.raises(SetupError, match=sentence):
        check_certificate(str(PEM / cert), str(PEM / key))


def test_a_name_that_does_not_resolve(tmp_path):
    name = "no-such-name.invalid"
    with Launched(tmp_path, *ECHO, hostname=name) as launched:
        assert launched.wait() == 1
        assert launched.lines[-1].startswith(f"Error: --hostname {name} does not resolve")
    with Launched(tmp_path, *ECHO, "--tgi-strict", hostname=name) as launched:
        launched.wait_connected()
        assert f"--hostname {name} does not resolve; listening on every" in launched.output
        assert launched.wait_for_event("launch")["document"]["hostname"] == "0.0.0.0"


def test_what_a_name_resolves_to_is_listened_on(tmp_path):
    with Launched(tmp_path, *ECHO, hostname="localhost") as launched:
        url = launched.wait_connected()
        assert url.startswith(("http://127.0.0.1:", "http://[::1]:"))


def test_servers_share_a_folder_for_their_counts(tmp_path):
    with Launched(tmp_path, *ECHO, "--num-servers", "2") as launched:
        launched.wait_connected()
        folders = {
            launched.wait_for_event("launch", number)["document"]["metrics_dir"]
            for number in (1, 2)
        }
        (folder,) = folders
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        (run,) = launched.runtime.iterdir()
        assert Path(folder).parent == run
