"""Whether a process lives, asked from outside."""

import os
import subprocess
import sys
import time

import pytest
from backplane_core.process import lives


def test_this_process_and_that_of_another_user_live():
    assert lives(os.getpid())
    assert lives(1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_that_nobody_has_waited_for_does_not():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        deadline = time.monotonic() + 30
        while lives(ended.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(ended.pid, 0)  # it is there, for whoever waits
        assert ended.wait() == 0
    assert not lives(ended.pid)
