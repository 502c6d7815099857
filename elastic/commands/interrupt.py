"""Ctrl-C while a completion is streamed: the first one ends the thought, the next one the program."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Literal

from elastic.budget import Phase

_RUNNING = (Phase.THINKING, Phase.NOTICE)


class ThoughtInterrupt:
    """A context manager that handles SIGINT.

    The first one while a thought runs asks for the thought's end, any other is a KeyboardInterrupt. Outside
    the main thread, the only one that gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self._phase: int | None = None
        self._asked = False

    def begin(self) -> None:
        """Call when another completion starts."""
        self._phase, self._asked = None, False

    def token(self, phase: int) -> Literal["end_thinking"] | None:
        """Takes note of a token's phase; says whether its completion is to stop thinking."""
        self._phase = phase
        return "end_thinking" if self._asked else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked or self._phase not in _RUNNING:
            raise KeyboardInterrupt
        self._asked = True

    def __enter__(self) -> "ThoughtInterrupt":
        self._takes_signals = threading.current_thread() is threading.main_thread()
        if self._takes_signals:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._takes_signals:
            signal.signal(signal.SIGINT, self._before)
