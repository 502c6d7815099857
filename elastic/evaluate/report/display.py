"""Completions as text, token by token, with thinking, forced tokens and solution told apart."""

from typing import TextIO

from elastic.evaluate.report.segments import Kind, kind_of
from elastic.rollout.record.row_text import IncrementalDecoder
from elastic.rollout.record.spans import Decode

_RESET = "\x1b[0m"
_COLOURS = {Kind.THINKING: "\x1b[2m", Kind.FORCED: "\x1b[7m", Kind.SOLUTION: ""}  # dim, reversed, plain


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
