"""Which pages may use the server: all, those that were named, or those of this machine."""

import httpx
import pytest
from backplane_core.control import ServerLaunch
from backplane_server.web.cors import EXPOSED, origin_policy

PAGE = "https://page.example"
LOCAL = ["http://localhost:8080", "http://127.0.0.1", "https://[::1]:3000", "http://app.localhost"]
FOREIGN = [
    PAGE,
    "null",
    "",
    "http://localhost.page.example",
    "http://127.0.0.1.page.example",
    "http://page.example/localhost",
    "http://localhost@page.example",
    "file://localhost",
    "http://[::1",
    "http://10.0.0.1",
]


def policy(**fields):
    settings = {"server_id": "s", "control_path": "", "model_id": "m", **fields}
    return origin_policy(ServerLaunch(**settings))


@pytest.mark.parametrize(
    "fields",
    [
        {"hostname": "0.0.0.0"},
        {"hostname": "0.0.0.0", "api_keys": ("k",)},
        {"hostname": "127.0.0.1", "api_keys": ("k",)},
        {"hostname": "127.0.0.1", "tgi_strict": True},
        {"hostname": "127.0.0.1", "cors_allow_origin": ("*",)},
        {"hostname": "127.0.0.1", "cors_allow_origin": ("https://a.example", "*")},
    ],
    ids=str,
)
def test_all_pages_may(fields):
    assert {policy(**fields)(origin) for origin in (*LOCAL, *FOREIGN)} == {"*"}


@pytest.mark.parametrize("hostname", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_without_a_key_pages_of_this_machine_may(hostname):
    allowed = policy(hostname=hostname)
    assert [allowed(origin) for origin in LOCAL] == LOCAL
    assert [allowed(origin) for origin in FOREIGN] == [None] * len(FOREIGN)


def test_pages_that_were_named_may_and_no_other():
    for hostname in ("0.0.0.0", "127.0.0.1"):
        allowed = policy(hostname=hostname, cors_allow_origin=(f"{PAGE}/", "http://B.example"))
        assert allowed(PAGE) == PAGE
        assert allowed("HTTP://b.example") == "HTTP://b.example"
        for origin in (f"{PAGE}.evil", f"{PAGE}:8080", "http://page.example", LOCAL[0]):
            assert allowed(origin) is None


@pytest.fixture(scope="module")
def keyed(stack_module):
    with stack_module.Stack(worker=False, api_keys=("k",)) as running:
        yield running


def preflight(stack, path="/v1/chat/completions", headers="authorization,content-type", **extra):
    return httpx.options(
        stack.url + path,
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": headers,
            **extra,
        },
        trust_env=False,
    )


def test_a_preflight_needs_no_key_and_lets_one_be_sent(keyed):
    response = preflight(keyed)
    assert (response.status_code, response.content) == (204, b"")
    headers = response.headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == "GET, POST"
    allowed = headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type"} <= set(allowed)
    assert "access-control-allow-credentials" not in headers
    assert "origin" in headers["vary"]
    assert headers["x-request-id"]


def test_what_openai_s_client_for_browsers_sends_is_allowed(keyed):
    asked = "authorization, content-type, x-stainless-os, X-Stainless-Retry-Count, x-evil"
    allowed = preflight(keyed, headers=asked).headers["access-control-allow-headers"].split(", ")
    assert {"x-stainless-os", "x-stainless-retry-count"} <= set(allowed)
    assert "x-evil" not in allowed


def test_options_without_a_preflight_s_headers_want_a_key(keyed):
    response = httpx.options(keyed.url + "/info", headers={"origin": PAGE}, trust_env=False)
    assert response.status_code == 401


def test_answers_and_refusals_can_be_read_by_the_page(keyed):
    key = {"authorization": "Bearer k"}
    for path, headers, status in (
        ("/v1/models", key, 200),
        ("/v1/models", {}, 401),
        ("/nope", key, 404),
        ("/health/live", {}, 200),
    ):
        response = keyed.get(path, headers={"origin": PAGE, **headers})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert exposed == list(EXPOSED)


def test_every_header_of_an_answer_is_exposed(stack):
    body = {"inputs": "hello", "unknown": 1, "parameters": {"max_new_tokens": 2}}
    response = stack.post("/generate", body)
    told = {name for name in response.headers if name.startswith("x-")}
    assert told == {name for name in EXPOSED if name.startswith("x-")}


def test_a_page_of_the_web_gets_nothing_from_a_local_server(stack):
    answer = stack.get("/info", headers={"origin": PAGE})
    assert answer.status_code == 200, "the browser keeps it from the page"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    refused = preflight(stack)
    assert not [name for name in refused.headers if name.startswith("access-control-allow")]
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert error["code"] == "origin_not_allowed"
    assert error["message"] == (
        f"origin {PAGE!r} is not allowed (the flag --cors-allow-origin lists them)"
    )
    mine = stack.get("/info", headers={"origin": LOCAL[0]})
    assert mine.headers["access-control-allow-origin"] == LOCAL[0]
    assert "origin" in mine.headers["vary"]
    two = [("origin", LOCAL[0]), ("origin", PAGE)]
    both = httpx.get(stack.url + "/info", headers=two, trust_env=False)
    assert "access-control-allow-origin" not in both.headers


def test_a_page_without_a_preflight_cannot_post(stack):
    """What a form can send, a preflight does not precede; such a body is not taken."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert stack.post_raw("/generate", b'{"inputs": "x"}', content_type=kind).status_code == 415


def test_what_an_answer_varies_by_already_stays(stack):
    page = stack.get("/", headers={"accept": "text/html"})
    assert page.headers["vary"].startswith("accept, origin")
