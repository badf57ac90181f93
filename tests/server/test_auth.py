"""With keys set, every path wants one but what is open on purpose: over the application's list."""

import itertools

import pytest
from backplane_core.control import ServerLaunch
from backplane_server.app import create_app
from backplane_server.pages.home import HOME_PAGE
from backplane_server.services.services import Services
from backplane_server.web.auth import ALWAYS_OPEN

KEYS = ("first-key", "Second-Key")
BAD = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer FIRST-KEY",
    "Bearer first-ke",
    "Bearer first-key2",
    "Basic first-key",
    "first-key",
    "Bearer first-key, Bearer first-key",
]


def make_app(**fields):
    settings = ServerLaunch(server_id="s", control_path="", model_id="echo:x", **fields)
    return create_app(Services(settings))


def every_route(app):
    found = [
        (method, route.path.replace("{name:str}", "swagger-ui.css"))
        for route in app.routes
        for method in sorted(route.methods)
    ]
    assert len(found) > 25
    return [*found, ("GET", "/nope"), ("POST", "/v1/nope"), ("GET", "//health/live")]


async def call(app, method, path, *authorizations, headers=()):
    """The status and headers of a request without a body, straight through ASGI."""
    sent = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("x", 80),
        "client": ("y", 1),
        "headers": [
            (b"host", b"localhost"),
            *((b"authorization", value.encode()) for value in authorizations if value is not None),
            *headers,
        ],
        "state": {},
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


async def test_every_route_wants_a_key():
    app = make_app(api_keys=KEYS)
    for (method, path), bad in itertools.product(every_route(app), BAD):
        if path in ALWAYS_OPEN:
            continue
        status, headers, body = await call(app, method, path, bad)
        assert status == 401, (method, path, bad)
        assert headers[b"www-authenticate"].startswith(b"Bearer")
        assert headers[b"content-type"] == b"application/json"
        assert b'"error"' in body
        assert (b"authentication_error" in body) is path.startswith("/v1/")


@pytest.mark.parametrize("key", ["Bearer first-key", "bearer Second-Key", "BEARER first-key"])
async def test_a_right_key_opens_every_route(key):
    app = make_app(api_keys=KEYS)
    for method, path in every_route(app):
        status, _, _ = await call(app, method, path, key)
        assert status != 401, (method, path)


async def test_an_empty_key_opens_nothing():
    app = make_app(api_keys=("",))
    for sent in (None, "Bearer", "Bearer ", "Bearer x"):
        assert (await call(app, "GET", "/info", sent))[0] == 401


async def test_two_authorization_headers_open_nothing():
    app = make_app(api_keys=KEYS)
    status, _, _ = await call(app, "GET", "/info", "Bearer first-key", "Bearer first-key")
    assert status == 401


async def test_the_probes_are_always_open():
    app = make_app(api_keys=KEYS)
    assert (await call(app, "GET", "/health/live"))[0] == 200
    assert (await call(app, "GET", "/health/ready"))[0] == 503
    assert (await call(app, "GET", "/health"))[0] == 401


async def test_the_home_page_alone_is_open_to_browsers():
    app = make_app(api_keys=KEYS)
    browser = [(b"accept", b"text/html,*/*;q=0.8")]
    assert (await call(app, "GET", "/", headers=browser))[2] == HOME_PAGE
    for method, path in every_route(app):
        if path in ALWAYS_OPEN or (method, path) == ("GET", "/"):
            continue
        assert (await call(app, method, path, headers=browser))[0] == 401, (method, path)
    for accept in (b"*/*", b"application/json", b"text/*"):
        assert (await call(app, "GET", "/", headers=[(b"accept", accept)]))[0] == 401


async def test_without_keys_everything_is_open():
    app = make_app()
    for method, path in every_route(app):
        assert (await call(app, method, path))[0] != 401


async def test_a_preflight_passes_only_with_cors():
    preflight = [
        (b"origin", b"https://chat.example"),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization"),
    ]
    path = "/v1/chat/completions"
    closed = make_app(api_keys=KEYS)
    assert (await call(closed, "OPTIONS", path, headers=preflight))[0] == 401
    app = make_app(api_keys=KEYS, cors_allow_origin=("https://chat.example",))
    status, headers, _ = await call(app, "OPTIONS", path, headers=preflight)
    assert status == 204
    assert b"authorization" in headers[b"access-control-allow-headers"].lower()
    assert headers[b"access-control-allow-origin"] == b"https://chat.example"
    assert (await call(app, "OPTIONS", path))[0] == 401
    assert (await call(app, "POST", path, headers=preflight))[0] == 401
