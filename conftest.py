"""For every test: programs start with the signals of a terminal, whoever started pytest."""

import signal


def pytest_configure():
    """Undo, for the programs that tests start, what `nohup` and `&` do to signals.

    An ignored signal stays ignored in children, and the launcher respects that; a handled one is
    back at its default there. pytest itself goes on ignoring it.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
