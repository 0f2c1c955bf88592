"""How much of the work is done."""

from collections.abc import Callable

OnProgress = Callable[[float], None]
"""Called with the fraction of the work that is done; never falls, and ends at 1."""


class ProgressMeter:
    """Turns finished LR pixels into a fraction that never falls.

    Args:
        total: pixels that all passes read together.
        on_progress: told.
    """

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._total = total
        self._done = 0.0
        self._on_progress = on_progress

    def add(self, pixels: float) -> None:
        """So many more are done."""
        # A band that runs again after an out-of-memory error is counted twice; 1 is kept for the
        # end.
        self._done += pixels
        self._tell(min(self._done / self._total, 0.999))

    def finish(self) -> None:
        """All are."""
        self._tell(1.0)

    def _tell(self, fraction: float) -> None:
        if self._on_progress is not None:
            self._on_progress(fraction)
