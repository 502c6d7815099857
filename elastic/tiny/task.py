"""Sums of signed digits modulo ten: a task that is easy step by step and hard at a glance.

A problem reads ``<bos> 3 + 4 - 9 + 2 = ? <think>``. A four-layer model cannot add ten digits in one
forward pass but can add two, so an answer without written steps is a guess: accuracy depends on how much
of the work fits into the budgets.

The traces show what a reasoning model shows. Thinking is verbose, doubts single steps, often goes
through the whole sum a second time, and slips now and then (a check repairs the slip). Some thoughts are
terse, and some solutions compute. A thought that was cut is mostly followed by a hasty answer and
sometimes by a solution that goes on from where the thought stopped. Everything a better policy under a
budget needs is therefore in the model, at a low probability.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from elastic.data.problem import Problem

START = "<think>"
END = "</think>"
BOS = "<bos>"
EOS = "<eos>"

MIN_OPERATIONS = 2
MAX_OPERATIONS = 10

_TEST_SHARE = 8  # one problem of so many belongs to the test split

VERBOSE_SHARE = 0.85  # of first passes
VERBOSE_CHECK_SHARE = 0.75  # of second passes
STEP_CHECK_SHARE = 0.15  # of verbose steps
CHECK_SHARE = 0.6  # of thoughts that go through the sum a second time
COMPUTING_SHARE = 0.25  # of solutions that write steps
SLIP_SHARE = 0.008  # of steps
UNOPENED_SHARE = 0.1  # of cut thoughts: stopped before their first word


CHECK_OPENING = ("wait", "check", ":")
CHECK_CLOSING = ("ok", ".")


@dataclass(frozen=True)
class Sum:
    """``digits[0] op[0] digits[1] op[1] ...`` with every ``op`` either ``+`` or ``-``."""

    digits: tuple[int, ...]
    operations: tuple[str, ...]

    def partial(self, steps: int) -> int:
        """The value modulo ten after ``steps`` operations."""
        value = self.digits[0]
        for operation, digit in zip(self.operations[:steps], self.digits[1:], strict=False):
            value = _apply(value, operation, digit)
        return value

    @property
    def answer(self) -> int:
        """The whole sum modulo ten."""
        return self.partial(len(self.operations))

    @property
    def prompt(self) -> str:
        """The problem as the model reads it, thinking already opened."""
        words = [str(self.digits[0])]
        for operation, digit in zip(self.operations, self.digits[1:], strict=True):
            words += [operation, str(digit)]
        return " ".join([BOS, *words, "=", "?", START])


@dataclass(frozen=True)
class Trace:
    """What follows a prompt in the pretraining data.

    Attributes:
        thinking: words in front of the end marker.
        solution: words behind it, ``<eos>`` included.
        cut: the thought was stopped from outside. Its words and the end marker are then context, not
            something to imitate: a model trained to stop anywhere would stop anywhere by itself.
    """

    thinking: tuple[str, ...]
    solution: tuple[str, ...]
    cut: bool = False


def _apply(value: int, operation: str, digit: int) -> int:
    return (value + digit) % 10 if operation == "+" else (value - digit) % 10


def sums(rng: random.Random, split: str = "train") -> Iterator[Sum]:
    """Endless random sums of one split, their number of operations uniform."""
    while True:
        yield draw(rng, rng.randint(MIN_OPERATIONS, MAX_OPERATIONS), split)


def draw(rng: random.Random, operations: int, split: str = "train") -> Sum:
    """A random sum of one split with so many operations.

    The splits are disjoint by construction, whatever the seeds: a checksum of the problem's text decides
    which split it belongs to, and the other split's problems are passed over.

    Raises:
        ValueError: ``split`` is neither ``train`` nor ``test``.
    """
    if split not in ("train", "test"):
        raise ValueError(f"draw: split must be 'train' or 'test', got {split!r}")
    while True:
        candidate = Sum(
            tuple(rng.randrange(10) for _ in range(operations + 1)),
            tuple(rng.choice("+-") for _ in range(operations)),
        )
        is_test = zlib.crc32(candidate.prompt.encode()) % _TEST_SHARE == 0
        if is_test == (split == "test"):
            return candidate


def problems(n: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """``n`` problems, the same ones for the same seed and split on every machine.

    Args:
        n: how many, at least 0.
        seed: any integer.
        split: ``train`` for pretraining and reinforcement learning, ``test`` for evaluation. No problem
            is in both (see ``draw``).

    Raises:
        ValueError: ``n`` is negative or ``split`` unknown.
    """
    if n < 0:
        raise ValueError(f"problems: n must be at least 0, got {n}")
    stream = sums(random.Random(f"{split}-{seed}"), split)
    return [
        Problem(prompt=item.prompt, answer=str(item.answer), id=f"tiny-{split}-{seed}-{index}")
        for index, item in zip(range(n), stream, strict=False)
    ]


def terse_steps(item: Sum, start: int = 0, value: int | None = None) -> list[str]:
    """The steps from ``start`` on, five words each, beginning with the running value ``value``."""
    running = item.partial(start) if value is None else value
    words: list[str] = []
    for operation, digit in list(zip(item.operations, item.digits[1:], strict=True))[start:]:
        result = _apply(running, operation, digit)
        words += [str(running), operation, str(digit), str(result), ","]
        running = result
    return words


class _Pass:
    """One walk through a sum that remembers after how many words which step was done."""

    def __init__(self, rng: random.Random, item: Sum, verbose: bool) -> None:
        self.words: list[str] = []
        self.done: list[int] = []  # done[i]: words written when step i was complete
        self.values: list[int] = []  # values[i]: what the writer believes after step i
        running = item.digits[0]
        for operation, digit in zip(item.operations, item.digits[1:], strict=True):
            right = _apply(running, operation, digit)
            result = rng.randrange(10) if rng.random() < SLIP_SHARE else right
            if verbose:
                self.words += f"so far we have {running} . now {operation} {digit} gives {result} .".split()
                if rng.random() < STEP_CHECK_SHARE:
                    self.words += f"wait : {running} {operation} {digit} gives {right} ok .".split()
                    result = right
            else:
                self.words += [str(running), operation, str(digit), str(result), ","]
            self.done.append(len(self.words))
            self.values.append(result)
            running = result
        self.result = running


def trace(rng: random.Random, item: Sum) -> Trace:
    """A whole thought and its solution."""
    first = _Pass(rng, item, rng.random() < VERBOSE_SHARE)
    thinking, result = list(first.words), first.result
    if rng.random() < CHECK_SHARE:
        second = _Pass(rng, item, rng.random() < VERBOSE_CHECK_SHARE)
        thinking += [*CHECK_OPENING, *second.words, *CHECK_CLOSING]
        result = second.result
    steps: list[str] = []
    if rng.random() < COMPUTING_SHARE:
        # It repeats the sum; a slip in the thought is then found here.
        steps, result = terse_steps(item), item.answer
    return Trace(tuple(thinking), (*steps, "answer", "is", str(result), EOS))


def cut_trace(rng: random.Random, item: Sum, goes_on_share: float) -> Trace:
    """A thought that was stopped somewhere, and the solution behind it.

    A solution in haste states the value written last, also when that belongs to an unfinished second pass.

    Args:
        rng: the source of all randomness.
        item: the problem.
        goes_on_share: how often the solution does the missing steps of the pass that was stopped; otherwise
            it states the running value as its answer.
    """
    first = _Pass(rng, item, rng.random() < VERBOSE_SHARE)
    words, current, start = list(first.words), first, 0
    second = None
    if rng.random() < CHECK_SHARE:
        second = _Pass(rng, item, rng.random() < VERBOSE_CHECK_SHARE)
        words += [*CHECK_OPENING, *second.words, *CHECK_CLOSING]
    length = 0 if rng.random() < UNOPENED_SHARE else rng.randrange(len(words))
    if second is not None and length > len(first.words) + len(CHECK_OPENING):
        current, start = second, len(first.words) + len(CHECK_OPENING)
    steps_done = sum(end <= length - start for end in current.done)
    value = current.values[steps_done - 1] if steps_done else item.digits[0]
    steps: list[str] = []
    if rng.random() < goes_on_share:
        steps = terse_steps(item, steps_done, value)
        value = int(steps[-2]) if steps else value
    return Trace(tuple(words[:length]), (*steps, "answer", "is", str(value), EOS), cut=True)
