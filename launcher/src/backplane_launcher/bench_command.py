"""`backplane bench`, between the command line and the measuring."""

from typing import TextIO

from backplane_launcher.bench.command import bench
from backplane_launcher.commands import BenchCommand


def run_bench(command: BenchCommand, output: TextIO, console: TextIO) -> int:
    """Measure servers; the exit status is 1 where requests failed."""
    return bench(command.settings, output, console)
