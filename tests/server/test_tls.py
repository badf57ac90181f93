"""TLS on the listening socket, its own or one that was handed over; and files that do not fit."""

import asyncio
import http.client
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import SetupError
from backplane_server.web.tls import server_context

FOLDER = Path(__file__).with_name("tls")
CERT, KEY = str(FOLDER / "cert.pem"), str(FOLDER / "key.pem")


@pytest.fixture(scope="module")
def secured(stack_module):
    with stack_module.Stack(tls_cert_file=CERT, tls_key_file=KEY) as running:
        yield running


def test_it_serves_and_says_where(secured):
    assert secured.url.startswith("https://127.0.0.1:")
    assert secured.get("/health").status_code == 200
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 3}}
    assert secured.post("/generate", body).json() == {"generated_text": "hel"}
    response, events = secured.events("/generate_stream", body)
    assert (response.status_code, len(events)) == (200, 3)
    assert "listening at https://127.0.0.1:" in secured.log()


def test_a_certificate_that_nobody_vouches_for_is_refused_by_clients(secured):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(secured.url + "/health", trust_env=False)


def test_plain_http_on_the_port_is_told_so(secured):
    host, port = secured.url.removeprefix("https://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/health", headers={"authorization": "Bearer secret"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (400, "close")
    assert b"https://" in answer.read()
    connection.close()
    assert secured.get("/health").status_code == 200
    assert "Traceback" not in secured.log()


def test_noise_on_the_port_ends_that_connection_alone(secured):
    for noise in (b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 100, b"SSH-2.0-x\r\n"):
        with secured.connect() as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(1000):
                pass
    assert secured.get("/health").status_code == 200
    assert "Traceback" not in secured.log()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_not_spoken(secured):
    host, port = secured.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=CERT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, int(port))) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="localhost")


def test_a_socket_that_was_handed_over_speaks_tls_too(stack_module):
    listening = socket.create_server(("127.0.0.1", 0))
    with (
        listening,
        stack_module.Stack(
            worker=False, listen_fd=listening.fileno(), tls_cert_file=CERT, tls_key_file=KEY
        ) as stack,
    ):
        assert stack.url.endswith(f":{listening.getsockname()[1]}")
        assert stack.get("/health/live").status_code == 200


def test_without_files_there_is_no_tls():
    assert server_context(None, None) is None


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        (None, KEY, "--tls-cert-file is not"),
        (CERT, None, "cannot be used"),
        (CERT, str(FOLDER / "other_key.pem"), "cannot be used"),
        (CERT, str(FOLDER / "locked_key.pem"), "cannot be used"),
        (CERT, CERT, "cannot be used"),
        (str(FOLDER / "README.md"), KEY, "cannot be used"),
        (str(FOLDER / "missing.pem"), KEY, "missing.pem cannot be read: No such file"),
        (CERT, str(FOLDER), "cannot be read: Is a directory"),
    ],
)
def test_files_that_do_not_fit(cert, key, said):
    with pytest.raises(SetupError, match=said) as error:
        server_context(cert, key)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"tls_cert_file": CERT, "tls_key_file": str(FOLDER / "locked_key.pem")},
            "without a password",
        ),
        ({"api_keys": ("k",), "open_routes": ("generate",)}, "--open-routes has no 'generate'"),
    ],
)
def test_the_server_ends_with_one_line_and_the_status_of_a_setup_error(tmp_path, fields, said):
    document = tmp_path / "server.json"
    launch = ServerLaunch(
        server_id="s", control_path=str(tmp_path / "none"), model_id="m", port=0, **fields
    )
    document.write_bytes(msgspec.json.encode(launch))
    ended = subprocess.run(
        [sys.executable, "-m", "backplane_server", str(document)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3
    [line] = ended.stderr.splitlines()
    assert said in line


async def test_plain_http_is_told_so_whichever_loop_serves():
    """The server runs on uvloop, these tests on asyncio's own loop."""
    server = await asyncio.start_server(
        lambda *_: None, "127.0.0.1", 0, ssl=server_context(CERT, KEY)
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
