import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest
from backplane_launcher.bench import processes
from backplane_launcher.bench.processes import (
    come_to_rest,
    cpu_s_of,
    descendants_of,
    is_local,
    processes_at,
    states_of,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# A supervisor whose one child listens and whose other one works, as our launcher's do.
SUPERVISOR = """
import socket, subprocess, sys
child = [sys.executable, "-c", "import time; time.sleep(60)"]
worker = subprocess.Popen(child)
listener = socket.create_server(("127.0.0.1", 0))
server = subprocess.Popen(child, pass_fds=[listener.fileno()])
port = listener.getsockname()[1]
listener.close()
print(port, worker.pid, server.pid, flush=True)
worker.wait()
"""


@pytest.fixture
def supervised():
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    port, worker, server = map(int, process.stdout.readline().split())
    yield port, process.pid, worker, server
    for pid in (worker, server, process.pid):
        os.kill(pid, 9)
    process.wait()
    process.stdout.close()


def test_a_server_is_its_supervisor_with_all_children(supervised):
    port, *pids = supervised
    assert processes_at(port) == sorted(pids)
    assert descendants_of(pids[0]) == sorted(pids)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert processes_at(port) == []


def test_who_measures_is_no_part_of_the_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert processes_at(listener.getsockname()[1]) == []


def test_states_tell_time_and_memory(supervised):
    _, _, worker, _ = supervised
    own = os.getpid()
    before = states_of([own], with_memory=False)[own]
    begun = time.process_time()
    while time.process_time() - begun < 0.1:
        pass
    found = states_of([own, worker, 2**22 + 1], with_memory=True)
    assert set(found) == {own, worker}
    assert found[own].cpu_s >= before.cpu_s + 0.1
    assert found[own].rss >= found[own].pss > 0
    assert before.rss == 0


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("bin/llama-server -m model.gguf", "llama-server"),
        ("bin/python3.11 -P -m some.module --port 1", "some.module"),
        ("python3 -u bin/serve.py -m model.gguf", "serve.py"),
        ("python -c import(some);thing", "python"),
        ("python", "python"),
        ("python:renamed", "python:renamed"),
        ("python3 -i", "python3"),
    ],
)
def test_a_process_is_named_by_what_it_runs(argv, name, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    own = tmp_path / str(os.getpid())
    own.mkdir()
    (own / "cmdline").write_text(argv.replace(" ", "\0"))
    assert states_of([os.getpid()], with_memory=False)[os.getpid()].name == name


def test_which_hosts_are_this_machine():
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert not is_local("192.0.2.1")
    assert not is_local("no-such-host.invalid")


SPINNING = """
import time
print("spinning", flush=True)
while time.process_time() < 0.6: pass
time.sleep(60)
"""


async def test_a_server_that_spins_after_its_turn_is_waited_for():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPINNING, stdout=asyncio.subprocess.PIPE
    )
    await process.stdout.readline()
    await come_to_rest([process.pid], limit_s=60.0)
    took_s = cpu_s_of([process.pid])
    process.kill()
    await process.wait()
    assert took_s >= 0.55  # clocks tick in hundredths


async def test_one_that_never_rests_is_not_waited_for_without_end(monkeypatch):
    looks = []

    def busy(pids):
        looks.append(pids)
        return float(len(looks))

    monkeypatch.setattr(processes, "cpu_s_of", busy)
    monkeypatch.setattr(processes, "_LOOK_S", 0.01)
    await come_to_rest([1], limit_s=0.05)
    assert len(looks) > 1
