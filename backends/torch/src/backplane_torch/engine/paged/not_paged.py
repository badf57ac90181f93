"""Why a model cannot run over a paged cache."""


class NotPagedError(Exception):
    """The model cannot run over a paged cache; the message says why."""


class LooksAheadError(NotPagedError):
    """Its tokens see those that follow them: no cache of any kind can hold what they come to."""

    def __init__(self) -> None:
        super().__init__("its tokens see those that follow them")
