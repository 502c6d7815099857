"""The default set under pytest-benchmark: `pytest bench --benchmark-only`, with `-k grpo_loss` and so on.

pytest-benchmark times one function after another, and a machine that drifts meanwhile bends the ratios. So
each case is measured at once, its variants alternating as in `python -m bench`, and the rounds measured are
handed to pytest-benchmark by a clock that advances by just so much.
"""

import functools

import pytest

from bench import cases
from bench.harness.case import Case
from bench.harness.device import Device, default_device
from bench.harness.run import Outcome, run_case

ROUNDS = 5


class Replay:
    """A clock that stands still but for what it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


REPLAY = Replay()
DEVICE = Device(default_device())
SIZES = cases.GPU if DEVICE.is_cuda else cases.CPU
ENTRIES = cases.default(SIZES)


@functools.lru_cache(maxsize=1)  # the variants of a case stand together
def measured(number: int) -> tuple[Case, Outcome]:
    case = ENTRIES[number].make(DEVICE)
    return case, run_case(case, DEVICE, ROUNDS)


def variants() -> list[object]:
    """Every variant of every case; the names are read from cases of a few elements."""
    tiny = cases.default(cases.tiny(SIZES))
    cpu = Device("cpu")
    return [
        pytest.param(number, name, id=f"{entry.op}-{number}-{name}")
        for number, entry in enumerate(tiny)
        for name in [variant.name for variant in entry.make(cpu).variants]
    ]


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize(("number", "name"), variants())
def test_op(benchmark, outcomes, number, name):
    case, outcome = measured(number)
    outcomes[number] = outcome
    for note in outcome.skipped:
        if note["variant"] == name:
            pytest.skip(note["why"])
    for error in outcome.errors:
        if error["variant"] == name:
            pytest.fail(error["trace"])
    timing = outcome.timings[name]
    times = iter(timing.cpu_ms if DEVICE.counts == "cpu" else timing.wall_ms)
    benchmark.group = f"{case.op}, {case.shape}, {case.dtype}"
    benchmark.extra_info |= next(row for row in outcome.rows if row["variant"] == name)
    benchmark.pedantic(lambda: REPLAY.advance(next(times) / 1e3), rounds=len(timing.wall_ms))
