"""With keys set, every path wants one but what is open on purpose: over the application's list."""

import itertools

import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import SetupError
from backplane_server.app import create_app
from backplane_server.pages.docs import DOCS_PATHS
from backplane_server.pages.home import HOME_PAGE
from backplane_server.services.services import Services
from backplane_server.web.auth import ALWAYS_OPEN
from backplane_server.web.open_routes import NAMES, open_routes
from backplane_server.web.refusal_log import EVERY_S, RefusalLog

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


async def test_routes_that_were_opened_by_name():
    opened = ("metrics", "info", "/v1/models", "docs", "ping")
    app = make_app(api_keys=KEYS, open_routes=opened)
    expected = {("GET", path) for path in ("/metrics", "/info", "/v1/models", "/ping")}
    expected |= {("GET", path) for path in ("/docs", "/docs/swagger-ui.css")}
    expected |= {("GET", "/api-doc/openapi.json")}
    assert await open_in(app) == expected & set(every_route(app))


async def test_tgi_s_own_open_routes():
    app = make_app(api_keys=KEYS, tgi_strict=True)
    expected = {("GET", path) for path in ("/", "/health", "/ping", "/info", "/metrics")}
    expected |= {("GET", path) for path in ("/v1/models", "/docs", "/docs/swagger-ui.css")}
    expected |= {("GET", "/api-doc/openapi.json"), ("POST", "/chat_tokenize")}
    assert await open_in(app) == expected & set(every_route(app))


async def open_in(app):
    """Routes that answer without a key, the probes aside."""
    found = set()
    for method, path in every_route(app):
        if path not in ALWAYS_OPEN and (await call(app, method, path))[0] != 401:
            found.add((method, path))
    return found


async def test_an_open_route_is_open_as_it_is_written_only():
    app = make_app(api_keys=KEYS, open_routes=("metrics", "docs"))
    paths = ("/metrics/", "//metrics", "/METRICS", "/metrics/x", "/docs/..", "/docs/../info")
    for path in (*paths, "/docs/%2e%2e/info", "/docs//", "/docs/unknown"):
        assert (await call(app, "GET", path))[0] == 401, path
    assert (await call(app, "POST", "/metrics"))[0] == 401
    assert (await call(app, "HEAD", "/metrics"))[0] == 200


@pytest.mark.parametrize("name", ["generate", "/v1/chat/completions", "Metrics", "*", "info,"])
def test_a_route_that_cannot_be_opened_is_an_error_of_the_start(name):
    with pytest.raises(SetupError, match="--open-routes") as error:
        make_app(api_keys=KEYS, open_routes=("info", name))
    assert "v1/models" in error.value.remedy


def test_every_name_means_a_route_there_is():
    paths = {path for _, path in every_route(make_app())}
    for name in NAMES:
        for _, path in open_routes([name], DOCS_PATHS, tgi_strict=False):
            assert path.rstrip("/") in paths or path in paths or path.startswith("/docs/"), name


async def test_a_key_of_one_byte_more_or_less_opens_nothing():
    app = make_app(api_keys=("k\u00e9y",))
    assert (await call(app, "GET", "/info", "Bearer k\u00e9y"))[0] != 401
    for wrong in ("Bearer key", "Bearer k\u00e9", "Bearer k\u00e9yy", "Bearer k\u00c9y"):
        assert (await call(app, "GET", "/info", wrong))[0] == 401


async def test_keys_are_compared_in_a_time_that_tells_nothing(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("backplane_server.web.auth.hmac.compare_digest", compare)
    app = make_app(api_keys=KEYS)
    await call(app, "GET", "/info", "Bearer first-key")
    assert compared == [(b"first-key", key.encode()) for key in KEYS], (
        "each key, also after a match"
    )


def test_refusals_are_told_once_a_minute_for_each_route(caplog):
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    for path in ("/health", "/health", "/info", "/health"):
        refusals.note("GET", path, "no key")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    first, second = caplog.messages
    assert first == (
        "401 for GET /health: no key; probes use /health/live and /health/ready, which need no key"
    )
    assert second == "401 for GET /info: no key"
    now[0] = EVERY_S
    for _ in range(2):
        refusals.note("GET", "/health", "no key")
    assert len(caplog.messages) == 3
    assert "401 for GET /health: no key (2 more since the last such line); p" in caplog.messages[2]


def test_a_probe_without_the_key_is_in_the_log(stack_module):
    with stack_module.Stack(worker=False, api_keys=KEYS) as running:
        for path in ("/health", "/metrics", "/nope-secret-path"):
            assert running.get(path).status_code == 401
        assert running.get("/info", headers={"authorization": "Bearer oops"}).status_code == 401
        stack_module.wait_until(lambda: running.log().count("WARNING") >= 4)
        log = running.log()
    assert "401 for GET /health: send an API key" in log
    assert "401 for GET /metrics: send an API key" in log
    assert "--open-routes metrics" in log
    assert "401 for GET /info: the API key is not valid" in log
    assert "401 for GET -: " in log
    assert "oops" not in log
    assert "secret-path" not in log
