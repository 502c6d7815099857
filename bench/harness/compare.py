"""Interleaved comparison of ways to do one job, in one process.

Machines drift: clocks, neighbours, page caches. So the ways alternate within every round, the order rotates
from round to round, and what is reported is the median over rounds and the median of the rounds' own ratios.
CPU time of the process stands beside wall time; on a busy machine only the former means anything.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

LEAST_MS = 1e-6  # of a difference of times, which noise may turn round where a dry run has little to do

# Runs a call once; its wall (or device) and CPU milliseconds.
Clock = Callable[[Callable[[], object]], tuple[float, float]]


def host_clock(call: Callable[[], object]) -> tuple[float, float]:
    """The host's clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del result  # freed outside the clock
    return wall * 1e3, cpu * 1e3


@dataclass
class Timed:
    """One way to do the job.

    Attributes:
        name: as printed.
        run: the timed call; gets the round's number, by which it picks one of several input sets.
        prepare: untimed, before each run, with the same number: refills what the last run overwrote.
        lead: what `run` does besides the job; timed in the same round, and taken off.
    """

    name: str
    run: Callable[[int], object]
    prepare: Callable[[int], object] = lambda _: None
    lead: Callable[[int], object] | None = None


@dataclass
class Timing:
    """Times of one way, a value a round, in milliseconds."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def median_ms(self) -> tuple[float, float]:
        """Median wall and CPU milliseconds."""
        return statistics.median(self.wall_ms), statistics.median(self.cpu_ms)

    def iqr_ms(self) -> float:
        """Distance of the quartiles of the wall milliseconds; 0 for a single round."""
        return iqr(self.wall_ms)


def iqr(values: Sequence[float]) -> float:
    """Distance of the quartiles; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def compare(
    ways: Sequence[Timed], rounds: int, warmup: int = 1, clock: Clock = host_clock
) -> dict[str, Timing]:
    """Times every way `rounds` times, alternating; `warmup` rounds before are thrown away."""
    timings = {way.name: Timing() for way in ways}
    for number in range(-warmup, rounds):
        first = number % len(ways)
        for way in [*ways[first:], *ways[:first]]:
            way.prepare(number)
            wall, cpu = clock(partial(way.run, number))
            if way.lead is not None:
                way.prepare(number)
                lead_wall, lead_cpu = clock(partial(way.lead, number))
                wall, cpu = max(wall - lead_wall, LEAST_MS), max(cpu - lead_cpu, LEAST_MS)
            if number >= 0:
                timings[way.name].wall_ms.append(wall)
                timings[way.name].cpu_ms.append(cpu)
    return timings


def ratios(timings: dict[str, Timing], slow: str, fast: str) -> tuple[float, float]:
    """How many times faster `fast` is: medians of the rounds' wall and CPU ratios."""
    a, b = timings[slow], timings[fast]
    return median_ratio(a.wall_ms, b.wall_ms), median_ratio(a.cpu_ms, b.cpu_ms)


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the rounds' own ratios."""
    return statistics.median(x / y for x, y in zip(slow, fast, strict=True))
