"""Whoever may be reached by others without a key is told so: in one line, by the launcher alone."""

import pytest

from .launched import Launched

ECHO = ("--model-id", "echo:x", "--port", "0", "--backend", "echo", "--num-servers", "2")


@pytest.mark.parametrize(
    ("hostname", "more", "count"),
    [
        ("0.0.0.0", (), 1),
        ("::", (), 1),
        ("0.0.0.0", ("--api-key", "k"), 0),
        ("127.0.0.1", (), 0),
        ("::1", (), 0),
    ],
)
def test_the_warning(tmp_path, hostname, more, count):
    with Launched(tmp_path, *ECHO, *more, hostname=hostname) as launched:
        launched.wait_connected()
        told = [line for line in launched.lines if "without --api-key" in line]
        assert len(told) == count
        assert all("WARNING launcher" in line for line in told)


GUARDED = "a key guards /health and /metrics too: probes use /health/live"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--api-key", "k"), GUARDED),
        (
            ("--api-key", "k", "--open-routes", "/health"),
            "guards /metrics too: Prometheus sends the key, or start with --open-routes metrics",
        ),
        (("--api-key", "k", "--open-routes", "health,metrics"), None),
        (("--api-key", "k", "--tgi-strict"), None),
        ((), None),
    ],
)
def test_what_a_key_guards_is_said_once(tmp_path, more, told):
    with Launched(tmp_path, *ECHO, *more, hostname="127.0.0.1") as launched:
        launched.wait_connected()
        said = [line for line in launched.lines if "a key guards" in line]
        assert len(said) == (told is not None)
        assert all(told in line for line in said)
