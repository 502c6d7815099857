"""The text of a completion while it grows: whole characters only, and where a stop string ends it."""

from collections.abc import Sequence

from elastic.rollout.record.spans import Decode

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class IncrementalDecoder:
    """Text of a growing list of tokens, piece by piece; the pieces together are the decoded whole.

    A token's text depends on its neighbours (byte pairs of one character, leading spaces), so each piece
    is a difference of two decodings of a short window.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._read = 0  # tokens of the window whose text was handed out

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character's bytes are still coming."""
        self._window.append(token)
        whole = self._decode(self._window)
        if whole.endswith(_REPLACEMENT):
            return ""
        return self._advance(whole)

    def finish(self) -> str:
        """What is still held back: bytes that no later token completed."""
        return self._advance(self._decode(self._window)) if self._read < len(self._window) else ""

    def _advance(self, whole: str) -> str:
        piece = whole[len(self._decode(self._window[: self._read])) :]
        self._window, self._read = self._window[self._read :], len(self._window) - self._read
        return piece


class RowText:
    """Text of one completion, cut in front of the first stop string.

    A stop string is looked for in what the row writes as its solution, across the borders of tokens; thoughts
    and forced text hold none, and one that begins there is none. What may be the beginning of one is held
    back until the next token says whether it is.

    Args:
        decode: ids to text, special tokens kept.
        stop: the stop strings, none empty.

    Attributes:
        stopped: whether a stop string is complete. Nothing is to be pushed from then on.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decoder = IncrementalDecoder(decode)
        self._stop = stop
        self._held = ""  # a proper beginning of a stop string

    def push(self, token: int, *, may_stop: bool) -> str:
        """The text that this token adds.

        Args:
            may_stop: whether the row drew the token as part of its solution.
        """
        piece = self._decoder.push(token)
        if not self._stop:
            return piece
        text, self._held = self._held + piece, ""
        if not may_stop:
            return text
        found = first_stop(text, self._stop)
        if found >= 0:
            self.stopped = True
            return text[:found]
        begun = _begun(text, self._stop)
        self._held = text[len(text) - begun :]
        return text[: len(text) - begun]

    def finish(self) -> str:
        """What is held back of a row that ends; nothing where a stop string ended it."""
        return "" if self.stopped else self._held + self._decoder.finish()


def first_stop(text: str, stop: Sequence[str], start: int = 0) -> int:
    """Where the first stop string of the text begins, from `start` on; -1 where there is none."""
    found = [at for string in stop if (at := text.find(string, start)) >= 0]
    return min(found, default=-1)


def _begun(text: str, stop: Sequence[str]) -> int:
    """Characters at the text's end that a stop string begins with."""
    longest = min(len(text), max(map(len, stop)) - 1)
    return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in stop)), 0)
