"""The end that a scheduler asks for."""

import signal
import threading
from types import FrameType


class Termination:
    """A context manager: SIGTERM, as schedulers send it before they kill, becomes `SystemExit`.

    Only the first one: launchers pass on what the scheduler sends to their children too, and the second must
    not end the writing of the checkpoint for which the first one gives time. A handler of the program's own
    stays; so does everything in threads other than the main one.
    """

    def __init__(self) -> None:
        self._asked = self._held = self._ours = False

    def hold(self) -> None:
        """From here on SIGTERM waits for `release`: the state is not one to go on from."""
        self._held = True

    def release(self) -> None:
        """The state is one to go on from; SystemExit where SIGTERM came."""
        self._held = False
        if self._asked:
            raise SystemExit(128 + signal.SIGTERM)

    def __enter__(self) -> None:
        self._asked = self._held = False
        main = threading.current_thread() is threading.main_thread()
        self._ours = main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if self._ours:
            signal.signal(signal.SIGTERM, self._handle)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None:
            self.release()  # the block may end with a state that is not one to go on from: it waits no longer

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self._asked = not self._asked, True
        if first and not self._held:
            raise SystemExit(128 + number)
