"""Grading of a rollout's answers: one at a time against all cores.

Mathematics: every pair goes to math-verify, and no two are equal, so nothing is known from before. Programs:
each runs in its sandbox on four inputs; one of four is wrong on the last of them. Items are answers.
"""

import itertools
import operator
from collections.abc import Callable
from dataclasses import replace

from bench.harness.case import Case, Variant
from bench.harness.device import Device
from elastic.data.code_tests import StdinTest
from elastic.rewards import RewardFunction, code_reward, math_reward
from elastic.rewards.cores import default_workers
from elastic.rewards.pool import PooledReward
from elastic.rewards.sandbox import SandboxMissing, check_available

BASELINE = "one worker"
TESTS = tuple(StdinTest(f"{n}\n{n + 1}\n", str(2 * n + 1)) for n in (3, 17, -5, 100))
PROGRAM = """</think>The sum of both:
```python
a, b = int(input()), int(input())
print({number} + a + b - {number} if a < {largest} else 0)
```
"""

Rows = tuple[list[str], list[object], list[float]]  # responses, references, grades


def expressions(rows: int, first: int) -> Rows:
    """Square roots, every other one written differently, and the others different."""
    numbers = range(first, first + rows)
    stated = [rf"</think>Thus \boxed{{\sqrt{{{4 * n}}}+\frac{{x}}{{{n}}}}}." for n in numbers]
    answers: list[object] = [rf"\frac{{x}}{{{n}}}+2\sqrt{{{n + n % 2}}}" for n in numbers]
    return stated, answers, [1.0 - n % 2 for n in numbers]


def programs(rows: int, first: int) -> Rows:
    numbers = range(first, first + rows)
    texts = [PROGRAM.format(number=n, largest=1000 if n % 4 else 100) for n in numbers]
    return texts, [TESTS] * rows, [float(n % 4 != 0) for n in numbers]


def math_case(_: Device, rows: int) -> Case:
    return of(f"mathematics R={rows}", math_reward, expressions, rows)


def code_case(_: Device, rows: int) -> Case:
    case = of(f"programs R={rows} tests={len(TESTS)}", code_reward, programs, rows)
    try:
        check_available()
    except SandboxMissing as error:
        case.variants = [replace(variant, skip=str(error)) for variant in case.variants]
    return case


def of(shape: str, reward: RewardFunction, made: Callable[[int, int], Rows], rows: int) -> Case:
    """Args:
    made: rows from the number of rows and the first one's number.
    """
    cores = default_workers()
    pools = {BASELINE: PooledReward(reward, 1), f"elastic, {cores} workers": PooledReward(reward, cores)}
    starts = itertools.count(2, rows)  # of each call, so that no answer is graded twice

    def variant(name: str) -> Variant:
        def call(_: int) -> tuple[list[float | None], list[float]]:
            responses, references, expected = made(rows, next(starts))
            return pools[name].grade_many(responses, references), expected

        def check(result: tuple[list[float | None], list[float]]) -> None:
            wrong = sum(map(operator.ne, *result))
            assert not wrong, f"{wrong} of {rows} grades are wrong"

        return Variant(name, lambda: call, check)

    variants = list(map(variant, pools))
    return Case("grading", shape, "text", variants, baseline=BASELINE, items=rows, clock="wall")
