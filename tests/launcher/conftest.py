import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path():
    """A folder with a short name: sockets live in it, and their paths are limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        yield Path(folder).resolve()
