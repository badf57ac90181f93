"""Flags of supervision and of what is logged."""

from dataclasses import dataclass
from typing import Annotated, Literal

from backplane_launcher.settings.flag import NOT_NEGATIVE, POSITIVE_NUMBER, SUPERVISION, flag

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class OperationSettings:
    """How children are watched and ended, and how much is said of it."""

    worker_stall_timeout: Annotated[
        float,
        flag(
            SUPERVISION,
            "--worker-stall-timeout",
            help="Seconds without a sign of life or a step after which a worker is replaced.",
            validator=POSITIVE_NUMBER,
        ),
    ] = 120.0
    graceful_termination_timeout: Annotated[
        float,
        flag(
            SUPERVISION,
            "--graceful-termination-timeout",
            "-g",
            help="Seconds that running requests get after SIGTERM.",
            validator=NOT_NEGATIVE,
        ),
    ] = 90.0
    json_output: Annotated[bool, flag(SUPERVISION, "--json-output", help="Logs as JSON lines.")] = (
        False
    )
    log_level: Annotated[LogLevel, flag(SUPERVISION, "--log-level", help="How much to log.")] = (
        "info"
    )
    env: Annotated[
        bool,
        flag(
            SUPERVISION,
            "--env",
            "-e",
            help="First log what this runs on: versions, backends, devices, drivers.",
        ),
    ] = False
