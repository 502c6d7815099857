"""Sums of signed digits modulo ten whose terms have names, so that a solution can continue a cut thought.

A problem reads ``<bos> a 3 b + 4 c - 9 = ? <think>``: ``a`` is the start, every further term one operation.
A four-layer model cannot add nine digits in one forward pass but can add two, so an answer without written
steps is a guess. A step names its term (``c 7 - 9 = 8``), so whoever reads an unfinished thought knows which
term is next: the solution can go on from there. How thoughts and solutions look is in ``traces``.
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

NAMES = "abcdefghi"  # of the terms, in order
MIN_OPERATIONS = 2
MAX_OPERATIONS = 8

# How a prompt asks for a length: the task's spellings of L1's two sentences.
REQUESTS = {"l1-exact": "so", "l1-max": "ok"}

# What s1 forces ("Final Answer:" behind the end marker, "Wait" in its place), in the task's words.
PHRASES = {"s1": "{end} answer is", "Wait": "wait :"}

SPLITS = ("train", "validation", "test")
_HELD_OUT = {0: "test", 1: "validation"}  # checksum modulo _SPLIT_BY to split; the rest is for training
_SPLIT_BY = 8


@dataclass(frozen=True)
class Sum:
    """``digits[0] op[0] digits[1] op[1] ...`` with every ``op`` either ``+`` or ``-``."""

    digits: tuple[int, ...]
    operations: tuple[str, ...]

    def partial(self, steps: int) -> int:
        """The value modulo ten after ``steps`` operations."""
        value = self.digits[0]
        for operation, digit in zip(self.operations[:steps], self.digits[1:], strict=False):
            value = apply(value, operation, digit)
        return value

    @property
    def answer(self) -> int:
        """The whole sum modulo ten."""
        return self.partial(len(self.operations))

    @property
    def terms(self) -> list[tuple[str, str, int]]:
        """(name, operation, digit) of every term behind the start."""
        return list(zip(NAMES[1:], self.operations, self.digits[1:], strict=False))

    @property
    def prompt(self) -> str:
        """The problem as the model reads it, thinking already opened."""
        words = [NAMES[0], str(self.digits[0])]
        for name, operation, digit in self.terms:
            words += [name, operation, str(digit)]
        return " ".join([BOS, *words, "=", "?", START])


def apply(value: int, operation: str, digit: int) -> int:
    """One operation modulo ten."""
    return (value + digit) % 10 if operation == "+" else (value - digit) % 10


def split_of(item: Sum) -> str:
    """The split a sum belongs to, by a checksum of its text; so splits are disjoint, whatever the seeds."""
    return _HELD_OUT.get(zlib.crc32(item.prompt.encode()) % _SPLIT_BY, "train")


def draw(rng: random.Random, operations: int, split: str = "train") -> Sum:
    """A random sum of one split with so many operations; sums of other splits are passed over.

    Raises:
        ValueError: ``split`` is none of ``SPLITS``.
    """
    if split not in SPLITS:
        raise ValueError(f"draw: split must be one of {', '.join(SPLITS)}, got {split!r}")
    while True:
        candidate = Sum(
            tuple(rng.randrange(10) for _ in range(operations + 1)),
            tuple(rng.choice("+-") for _ in range(operations)),
        )
        if split_of(candidate) == split:
            return candidate


def sums(rng: random.Random, split: str = "train") -> Iterator[Sum]:
    """Endless random sums of one split, their number of operations uniform."""
    while True:
        yield draw(rng, rng.randint(MIN_OPERATIONS, MAX_OPERATIONS), split)


def problems(n: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """``n`` problems, the same ones for the same seed and split on every machine.

    Args:
        n: how many, at least 0.
        seed: any integer.
        split: ``train`` for pretraining and reinforcement learning, ``validation`` for choosing settings,
            ``test`` for what is reported. No problem is in two of them (see ``split_of``).

    Raises:
        ValueError: ``n`` is negative or ``split`` unknown.
    """
    if n < 0:
        raise ValueError(f"problems: n must be at least 0, got {n}")
    if split not in SPLITS:
        raise ValueError(f"problems: split must be one of {', '.join(SPLITS)}, got {split!r}")
    stream = sums(random.Random(f"{split}-{seed}"), split)
    return [
        Problem(prompt=item.prompt, answer=str(item.answer), id=f"tiny-{split}-{seed}-{index}")
        for index, item in zip(range(n), stream, strict=False)
    ]


def ask(prompt: str, kind: str, tokens: int) -> str:
    """The prompt with a request for a length in front of its open thought, N in digits.

    ``... = ? so : 4 0 <think>`` stands for "Think for 40 tokens." and ``ok : 4 0`` for "Think for maximum 40
    tokens." (L1, arXiv 2503.04697): the task's vocabulary has no words for these.

    Args:
        prompt: of a problem.
        kind: a key of ``REQUESTS``.
        tokens: N, at least 0.

    Raises:
        ValueError: an unknown ``kind``, a negative N, or a prompt that does not end in an open thought.
    """
    if kind not in REQUESTS:
        raise ValueError(f"ask: kind must be one of {', '.join(REQUESTS)}, got {kind!r}")
    if tokens < 0:
        raise ValueError(f"ask: tokens must be at least 0, got {tokens}")
    question, opened, behind = prompt.rpartition(f" {START}")
    if not opened or behind:
        raise ValueError(f"ask: the prompt must end in '{START}', got {prompt!r}")
    return " ".join([question, REQUESTS[kind], ":", *str(tokens), START])
