"""Which Host a request may name, and HEAD."""

import socket

import pytest
from backplane_server.web.host_check import is_loopback
from backplane_server.web.responses import encode_headers


@pytest.fixture(scope="module")
def named(stack_module):
    with stack_module.Stack(
        worker=False, hostname="127.0.0.1", allowed_hosts=("LLM.example", "gateway")
    ) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3:3000",
        "[::1]:3000",
        "[::ffff:10.0.0.1]",
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "a.b.localhost:3000",
        "llm.example",
        "llm.EXAMPLE.:3000",
        "gateway",
        socket.gethostname(),
    ],
)
def test_names_that_mean_this_server(named, host):
    assert named.get("/metrics", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", "127.1"],
)
@pytest.mark.parametrize("path", ["/metrics", "/", "/v1/models", "/nope"])
def test_a_name_of_somebody_else_is_refused_with_the_flag(named, host, path):
    response = named.get(path, headers={"host": host})
    assert response.status_code == 403
    assert "--allowed-host" in response.text
    assert host in response.text


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "a@localhost", "[::1", "[:::]", "localhost:port", "localhost:123456"]
)
def test_a_malformed_host_is_400(named, host):
    assert named.get("/metrics", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /health/live HTTP/1.1\r\nhost: evil.example\r\n\r\n", b"200"),
    ],
)
def test_the_header_as_it_is_sent(named, head, status):
    with named.connect() as raw:
        raw.sendall(head)
        assert raw.recv(100).split()[1] == status


def test_with_a_key_any_name_will_do_that_is_one(stack_module):
    key = {"authorization": "Bearer secret"}
    with stack_module.Stack(worker=False, api_keys=("secret",)) as stack:
        for host, status in (("anything.example:1", 200), ("a b", 400)):
            assert stack.get("/metrics", headers={"host": host, **key}).status_code == status
        assert stack.get("/metrics", headers={"host": "a.example"}).status_code == 401


def test_a_server_that_listens_for_others_goes_by_any_name(stack_module):
    with stack_module.Stack(worker=False, hostname="0.0.0.0") as stack:
        assert stack.get("/metrics", headers={"host": "tgi.namespace.svc"}).status_code == 200


def test_unless_it_is_told_its_names(stack_module):
    with stack_module.Stack(worker=False, hostname="0.0.0.0", allowed_hosts=("gw",)) as stack:
        assert stack.get("/metrics", headers={"host": "gw"}).status_code == 200
        assert stack.get("/metrics", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("hostname", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("llm.example", False),
    ],
)
def test_which_addresses_are_this_machine_s_own(hostname, loopback):
    assert is_loopback(hostname) is loopback


def test_head_is_get_without_the_body(stack):
    for path in ("/health", "/health/live", "/info", "/v1/models", "/docs/", "/"):
        whole, head = stack.get(path), stack._client.head(stack.url + path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-length"] == str(len(whole.content))
    assert stack._client.head(stack.url + "/nope").status_code == 404
    response = stack._client.head(stack.url + "/generate")
    assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")


def test_header_values_are_printable_ascii():
    assert encode_headers({"X-Device": "Fast™ GPU\r\nx: y"}) == [
        (b"x-device", b"Fast? GPU??x: y"),
    ]
