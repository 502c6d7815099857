"""What the embedded model is trained to write: thoughts, some of them cut, and their solutions.

The traces behave as a reasoning model does. Thinking is verbose, doubts single steps, sometimes goes through
the whole sum a second time, and slips now and then (a doubt repairs the slip). A thought never ends early by
itself. A cut thought is mostly followed by a hasty answer and sometimes by a solution that goes on from where
the thought stopped. So the model already has, at a low probability, all that a better policy under a budget
needs::

    thought    we have 7 . c 7 - 9 = 8 . wait : 7 - 9 = 8 ok . d 8 + 2 = 0 .
    finished   answer is 0 <eos>
    in haste   answer is 8 <eos>
    goes on    so d 8 + 2 = 0 answer is 0 <eos>
"""

import random
from dataclasses import dataclass

from elastic.data.sums import EOS, Sum, apply

LONG_SHARE = 0.7  # of a thought's sentences
DOUBT_SHARE = 0.15  # of its steps
SLIP_SHARE = 0.001  # of its steps
CHECK_SHARE = 0.35  # of thoughts that go through the sum a second time
RESTATING_SHARE = 0.1  # of solutions behind a finished thought
UNOPENED_SHARE = 0.1  # of cut thoughts: stopped before their first word
GOES_ON_SHARE = 0.3  # of solutions behind a cut thought

CHECK_OPENING = ("wait", "check", ":")
CHECK_CLOSING = ("ok", ".")
GOES_ON = "so"


@dataclass(frozen=True)
class Trace:
    """What follows a prompt in the pretraining data.

    Attributes:
        thinking: words in front of the end marker.
        solution: words behind it, ``<eos>`` included.
        cut: whether the thought was stopped from outside. Its end marker is then no training target: a model
            trained to stop anywhere would stop anywhere by itself.
    """

    thinking: tuple[str, ...]
    solution: tuple[str, ...]
    cut: bool = False


class _Pass:
    """One walk through a sum; records after how many words each result was written."""

    def __init__(self, rng: random.Random, item: Sum) -> None:
        self.words: list[str] = []
        self.result = item.digits[0]
        self._written = [(0, 0, self.result)]  # (words, steps, value)
        for name, operation, digit in item.terms:
            self._step(rng, name, operation, digit)

    def progress(self, words: int) -> tuple[int, int]:
        """(steps done, running value) as the first ``words`` words show them."""
        _, steps, value = max(entry for entry in self._written if entry[0] <= words)
        return steps, value

    def _step(self, rng: random.Random, name: str, operation: str, digit: int) -> None:
        running, steps = self.result, self._written[-1][1] + 1
        right = apply(running, operation, digit)
        slips, is_long, is_doubted = (rng.random() < share for share in (SLIP_SHARE, LONG_SHARE, DOUBT_SHARE))
        if is_long:
            self.words += ["we", "have", str(running), "."]
        written = rng.randrange(10) if slips else right
        self._write([*step_words(name, running, operation, digit, written)], steps, written)
        self.words.append(".")
        if is_doubted:
            self._write(["wait", ":", str(running), operation, str(digit), "=", str(right)], steps, right)
            self.words += ["ok", "."]

    def _write(self, words: list[str], steps: int, value: int) -> None:
        self.words += words
        self._written.append((len(self.words), steps, value))
        self.result = value


def step_words(name: str, value: int, operation: str, digit: int, result: int) -> list[str]:
    """One step, six words: ``c 7 - 9 = 8``."""
    return [name, str(value), operation, str(digit), "=", str(result)]


def missing_steps(item: Sum, done: int, value: int) -> tuple[list[str], int]:
    """The steps behind the first ``done`` ones, from the running value ``value``, and their result."""
    words: list[str] = []
    for name, operation, digit in item.terms[done:]:
        result = apply(value, operation, digit)
        words += step_words(name, value, operation, digit, result)
        value = result
    return words, value


def trace(rng: random.Random, item: Sum) -> Trace:
    """A whole thought and its solution."""
    thinking, _, result = _thought(rng, item)
    opening = (GOES_ON,) if rng.random() < RESTATING_SHARE else ()
    return Trace(tuple(thinking), (*opening, *_statement(result)))


def cut_trace(rng: random.Random, item: Sum, goes_on_share: float = GOES_ON_SHARE) -> Trace:
    """A thought that was stopped at a random word, and the solution behind it.

    Where the thought was stopped in its second pass, the first pass's result counts and no step is missing.

    Args:
        rng: the source of all randomness.
        item: the problem.
        goes_on_share: how often the solution does the missing steps; otherwise it states the running value
            as its answer.
    """
    words, first, _ = _thought(rng, item)
    length = 0 if rng.random() < UNOPENED_SHARE else rng.randrange(len(words))
    done, value = first.progress(length)
    steps: list[str] = []
    if rng.random() < goes_on_share:
        missing, value = missing_steps(item, done, value)
        steps = [GOES_ON, *missing]
    return Trace(tuple(words[:length]), (*steps, *_statement(value)), cut=True)


def _thought(rng: random.Random, item: Sum) -> tuple[list[str], _Pass, int]:
    """The words of a whole thought, its first pass, and its result."""
    first = _Pass(rng, item)
    if rng.random() >= CHECK_SHARE:
        return first.words, first, first.result
    second = _Pass(rng, item)
    return [*first.words, *CHECK_OPENING, *second.words, *CHECK_CLOSING], first, second.result


def _statement(value: int) -> tuple[str, ...]:
    return ("answer", "is", str(value), EOS)
