"""Completions as text, token by token, with thinking, forced tokens and solution told apart."""

from collections.abc import Callable, Sequence
from typing import TextIO

from elastic.evaluate.report.segments import Kind, kind_of

Decode = Callable[[Sequence[int]], str]

_RESET = "\x1b[0m"
_COLOURS = {Kind.THINKING: "\x1b[2m", Kind.FORCED: "\x1b[7m", Kind.SOLUTION: ""}  # dim, reversed, plain
_REPLACEMENT = "�"


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


class Display:
    """Writes one completion after another to a stream.

    On a terminal thinking is dim, forced text reversed and the solution plain; elsewhere every run starts
    on a new line with its kind in brackets.

    Args:
        out: where to.
        decode: ids to text, special tokens kept.
        colour: terminal escapes instead of labels.
    """

    def __init__(self, out: TextIO, decode: Decode, *, colour: bool) -> None:
        self._out = out
        self._decode = decode
        self._colour = colour
        self._decoder = IncrementalDecoder(decode)
        self._kind: Kind | None = None

    def begin(self, heading: str) -> None:
        """Starts a completion under a heading."""
        self._decoder, self._kind = IncrementalDecoder(self._decode), None
        self._out.write(f"=== {heading}\n")

    def token(self, token: int, source: int, phase: int) -> None:
        """Shows one token at once; pads are passed over."""
        kind = kind_of(source, phase)
        if kind is None:
            return
        changed = kind != self._kind
        if changed:
            self._out.write(self._decoder.finish())  # a token of another kind completes no character
            self._change_to(kind)
        piece = self._decoder.push(token)
        self._out.write(piece.lstrip(" ") if changed else piece)
        self._out.flush()

    def end(self, summary: str) -> None:
        """Ends the completion with a line about it."""
        self._out.write(self._decoder.finish())
        if self._colour:
            self._out.write(_RESET)
        self._out.write(f"\n({summary})\n\n")
        self._out.flush()

    def _change_to(self, kind: Kind) -> None:
        first, self._kind = self._kind is None, kind
        if self._colour:
            # One space between runs, outside the colour; the solution gets a line of its own.
            separator = "" if first else "\n" if kind == Kind.SOLUTION else " "
            self._out.write(f"{_RESET}{separator}{_COLOURS[kind]}")
        else:
            self._out.write(f"{'' if first else chr(10)}[{kind.value}] ")
