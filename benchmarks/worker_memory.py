"""What a worker holds beside weights and cache, after work at its fullest.

`python -m benchmarks.worker_memory`, in MiB, when it is ready and after many streams. The cache's
size is the worker's own word in its log; weights count once, however often the engine holds them.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop
from backplane_launcher.bench.load import Level, Loader
from backplane_launcher.bench.plan import make_plan
from backplane_launcher.settings.bench import BenchSettings

from benchmarks.random_model import MODELS, gguf_of
from benchmarks.rounds import conditions
from benchmarks.startup import STARTS_WITHIN_S, free_port, status_of

_MIB: Final = 2**20
_BACKPLANE: Final = str(Path(sys.executable).with_name("backplane"))
_CACHE: Final = re.compile(r"KiB per token, ([\d,]+) MiB")
_FIELDS: Final = ("Rss", "Pss", "Anonymous")


def worker_of(launcher: int) -> int:
    """The process id of the worker among a launcher's children."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == launcher and "backplane_core.worker" in command:
            return int(folder.name)
    raise SystemExit("there is no worker")


def memory_of(pid: int) -> dict[str, float]:
    """MiB by kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines[1:])}
    return {name: kib[name] * 1024 / _MIB for name in _FIELDS}


async def load(url: str, streams: int, waves: int) -> None:
    """Keep so many streams busy."""
    plan = make_plan(BenchSettings(seed=1, prompt_length="157", output_length="96"))
    client = plan.client(url)
    try:
        loader = Loader(client, plan.workload, 0, plan.seed)
        await loader.run(Level(concurrency=streams, num=waves * streams))
    finally:
        client.close()
    if loader.tally.num_failed:
        raise SystemExit("requests failed")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="125m")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--waves", type=int, default=2, help="requests of each stream")
    asked = parser.parse_args()
    model, port = gguf_of(asked.model), free_port()
    command = [_BACKPLANE, "--hostname", "127.0.0.1", "--port", str(port), "--model-id", str(model)]
    log = Path(tempfile.mkdtemp()) / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        begun = time.monotonic()
        while status_of(port) != 200:
            if process.poll() is not None or time.monotonic() - begun > STARTS_WITHIN_S:
                process.kill()
                raise SystemExit(f"it does not start:\n{log.read_text()}")
            time.sleep(0.1)
        pid = worker_of(process.pid)
        ready = memory_of(pid)
        uvloop.run(load(f"http://127.0.0.1:{port}", asked.streams, asked.waves))
        worked = memory_of(pid)
    finally:
        process.terminate()
        process.wait()
    found = _CACHE.search(log.read_text())
    if found is None:
        raise SystemExit(f"the worker does not say how large its cache is:\n{log.read_text()}")
    cache, weights = float(found[1].replace(",", "")), model.stat().st_size / _MIB
    ready["beside"], worked["beside"] = (
        memory["Rss"] - weights - cache for memory in (ready, worked)
    )
    print(f"{conditions()}\n\n| MiB | ready | after {asked.streams} streams |\n|---|---:|---:|")
    for name in ready:
        print(f"| {name} | {ready[name]:.0f} | {worked[name]:.0f} |")
    print(f"\nbeside: Rss less {weights:.0f} of the model's file and {cache:.0f} of its cache")


if __name__ == "__main__":
    main()
