"""A callback for every token of a call, over a stream of it."""

from collections.abc import Callable

from elastic.rollout.stream import Stream
from elastic.rollout.watch import Step

# row, token, phase, source; "end_thinking" ends the row's thinking with the next token (SPEC R22)
OnToken = Callable[[int, int, int, int], str | None]

END_THINKING = "end_thinking"  # what the callback returns


def report(step: Step, on_token: OnToken, stream: Stream) -> None:
    """Calls `on_token` for each token of a step, and does what it answers."""
    for row, token, _, phase, source in step.tokens:
        answer = on_token(row, token, phase, source)
        if answer not in (None, END_THINKING):
            raise ValueError(f"on_token: expected None or {END_THINKING!r} returned, got {answer!r}")
        if answer is not None:
            stream.end_thinking(row)
