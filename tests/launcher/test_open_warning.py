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
