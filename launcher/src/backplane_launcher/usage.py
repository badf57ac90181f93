"""The error for a command line or environment that cannot be meant: exit code 2."""

from typing import ClassVar

from backplane_core.errors import SetupError


class UsageError(SetupError):
    """A flag, its value or a variable is wrong."""

    code: ClassVar[str] = "usage"
