"""Being asked to stop: SIGTERM and a closed terminal end a run as Ctrl-C does."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the program to stop; its number is the argument."""


def interrupted_status(interruption: KeyboardInterrupt) -> int:
    """The exit status as shells have it: 128 and the number of the signal."""
    number = interruption.args[0] if isinstance(interruption, Terminated) else signal.SIGINT
    return 128 + int(number)


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``Terminated``, so that temporary files are removed.

    A signal that is ignored (as under ``nohup``) or already taken care of stays as it is.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in _stop_signals():
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _raise_terminated)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_flag() -> Iterator[Callable[[], int | None]]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise a flag, for work that ends by itself between steps.

    A second one ends the program at once. A signal that is ignored, as under ``nohup``, stays so.

    Yields:
        A function that gives the number of the signal that asked first, None while none did.
    """
    asked: list[int] = []

    def raise_flag(number: int, frame: FrameType | None) -> None:
        if asked:
            _raise_terminated(number, frame)
        asked.append(number)

    previous = {
        number: signal.signal(number, raise_flag)
        for number in (signal.SIGINT, *_stop_signals())
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_signals() -> tuple[signal.Signals, ...]:
    # Windows has no SIGHUP.
    hangup = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
    return (signal.SIGTERM, *hangup)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
