"""How far an evaluation is: a bar on a terminal, else a line on stderr now and then."""

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts completions and says how long the rest may take.

    Args:
        total: completions of the whole run.
        done: those that an earlier call left.
        shown: False for silence; None or True shows a bar on a terminal, else lines.
        clock: seconds, for tests.
    """

    def __init__(
        self, total: int, done: int, shown: bool | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self._total, self._done, self._first, self._clock = total, done, done, clock
        self._begun = self._said = clock()
        self._bar: Any = None
        self._lines = shown is not False and not sys.stderr.isatty()
        if shown is not False and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc="eval", unit="answer", smoothing=0)

    def add(self, completions: int) -> None:
        """Counts so many more."""
        self._done += completions
        if self._bar is not None:
            self._bar.update(completions)
        now = self._clock()
        if self._lines and now - self._said >= _SECONDS_BETWEEN_LINES and self._done < self._total:
            self._said = now
            print(f"elastic: eval: {self.text(now)}", file=sys.stderr, flush=True)

    def text(self, now: float) -> str:
        """`512 of 2048 answers, about 12 min left`, at the mean pace of this call."""
        pace = (now - self._begun) / (self._done - self._first)
        return f"{self._done} of {self._total} answers, about {_span((self._total - self._done) * pace)} left"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
