"""Checks the variants of a case, times those that are right, and makes rows of what was measured."""

import gc
import math
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.harness.case import CEILING, Case, Variant, available
from bench.harness.compare import Timed, Timing, compare, iqr, median_ratio
from bench.harness.device import Device
from bench.output.results import row
from bench.output.tables import NOISY

WARM_S = 1.0  # rounds that take longer need no warm-up but the check's and the watched call
# How many rounds to make, given the seconds that a round takes.
Rounds = int | Callable[[float], int]


@dataclass
class Outcome:
    """Rows of `bench.output.results`, and what is known of the variants that have none.

    Attributes:
        errors: variants that failed or were wrong.
        skipped: variants whose packages are not installed.
        timings: every round of each variant, of one call.
        device_lost: no further work can run in this process.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    timings: dict[str, Timing] = field(default_factory=dict)
    device_lost: bool = False


def run_case(
    case: Case,
    device: Device,
    rounds: Rounds,
    bytes_per_ms: float | None = None,
    again: Rounds = 0,
    until: float = math.inf,
) -> Outcome:
    """Checks every variant, then times those that are right, alternating.

    Args:
        rounds: how many, or a function of the seconds that a round takes.
        bytes_per_ms: the ceiling of memory traffic; None takes the case's own variant `CEILING`.
        again: rounds of a second measurement, made where the quartiles of the first lie too far apart
            (`tables.NOISY`); the steadier of both is reported. 0: none.
        until: when `time.monotonic()` is there, all should be done.
    """
    gc.collect()  # what others left must not be freed while memory is watched
    out = Outcome()
    calls: dict[str, tuple[Variant, Callable[[int], Any]]] = {}
    peaks: dict[str, int | None] = {}
    round_s = 0.0
    for variant in case.variants:
        if why := _why_not(variant, until - round_s):  # what is made must still be timed
            out.skipped.append(_note(case, variant.name, why=why))
            continue
        # One way that does not compile, load or compute must not cost the others; it is reported and makes
        # the run fail.
        try:
            call = variant.make()
            variant.prepare(0)
            variant.check(call(0))
            device.release()
            began = time.monotonic()
            variant.prepare(0)
            peaks[variant.name] = device.peak_bytes(lambda call=call: call(0))
            device.synchronize()
            round_s += time.monotonic() - began
        except Exception as error:
            out.errors.append(error_of(case, variant.name, error))
            if device.lost():
                out.device_lost = True
                return out
        else:
            calls[variant.name] = (variant, call)
    if calls:
        for made in (case.work or {}).values():
            made.clear()
        ways = [
            Timed(name, call, variant.prepare, variant.lead and variant.lead())
            for name, (variant, call) in calls.items()
        ]

        def measured(rounds: Rounds, warmup: int) -> dict[str, Timing]:
            count = rounds if isinstance(rounds, int) else rounds(round_s)
            found = compare(ways, count, warmup, device.clock) if count else {}
            return {name: _of_one_call(case, calls[name][0], timing) for name, timing in found.items()}

        out.timings = measured(rounds, int(round_s < WARM_S))
        counts = case.clock or device.counts
        if _unsteadiness(out.timings, counts) > NOISY and (second := measured(again, 0)):
            out.timings = min(out.timings, second, key=lambda timings: _unsteadiness(timings, counts))
    out.rows = [
        _row(case, variant, device, out.timings, peaks, bytes_per_ms) for variant, _ in calls.values()
    ]
    return out


def _why_not(variant: Variant, until: float) -> str:
    """Why a variant is not made; empty where it is."""
    if variant.skip:
        return variant.skip
    if absent := [need for need in variant.needs if not available(need)]:
        return f"{', '.join(absent)} not installed"
    if time.monotonic() + variant.takes_s > until:
        return (
            f"no time left, making it takes about {variant.takes_s:.0f} s"
            if variant.takes_s
            else "time was up"
        )
    return ""


def _counted(timing: Timing, counts: str) -> list[float]:
    return timing.cpu_ms if counts == "cpu" else timing.wall_ms


def _unsteadiness(timings: Mapping[str, Timing], counts: str) -> float:
    """The largest distance of quartiles over the median among the variants."""
    counted = [_counted(timing, counts) for timing in timings.values()]
    return max(iqr(values) / max(statistics.median(values), 1e-9) for values in counted)


def _of_one_call(case: Case, variant: Variant, timing: Timing) -> Timing:
    """Times of one repeat, and where calls differ in what they make, of `items` things made."""
    factors = [1 / variant.repeats] * len(timing.wall_ms)
    if case.work is not None and case.items is not None and variant.name in case.work:
        factors = [case.items / made for made in case.work[variant.name][-len(factors) :]]
    return Timing(
        [ms * factor for ms, factor in zip(timing.wall_ms, factors, strict=True)],
        [ms * factor for ms, factor in zip(timing.cpu_ms, factors, strict=True)],
    )


def _row(
    case: Case,
    variant: Variant,
    device: Device,
    timings: dict[str, Timing],
    peaks: dict[str, int | None],
    bytes_per_ms: float | None,
) -> dict[str, Any]:
    counts = case.clock or device.counts
    counted = {name: _counted(timing, counts) for name, timing in timings.items()}
    mine, baseline = counted[variant.name], counted.get(case.baseline)
    median = statistics.median(mine)
    moved = case.bytes if variant.bytes is None else variant.bytes
    share = None
    if not moved:
        share = None
    elif bytes_per_ms is not None:
        share = moved / median / bytes_per_ms
    elif CEILING in counted:
        most = next(v.bytes for v in case.variants if v.name == CEILING) or case.bytes
        share = median_ratio(counted[CEILING], mine) * moved / most
    wall_ms, cpu_ms = timings[variant.name].median_ms()
    return row(
        op=case.op,
        shape=case.shape,
        dtype=case.dtype,
        device=str(device.torch),
        threads=torch.get_num_threads(),
        variant=variant.name,
        median_ms=median,
        iqr_ms=iqr(mine),
        ratio_to_eager=None if baseline is None else median_ratio(baseline, mine),
        bytes=moved,
        ceiling_share=share,
        peak_bytes=peaks[variant.name],
        kind=variant.kind,
        model=case.model,
        axis=case.axis,
        at=case.at,
        items=case.items,
        rounds=len(mine),
        clock=counts,
        wall_ms=wall_ms,
        cpu_ms=cpu_ms,
        **case.extra(variant.name, timings),
    )


def _note(case: Case, variant: str, **more: str) -> dict[str, str]:
    return {"op": case.op, "shape": case.shape, "dtype": case.dtype, "variant": variant, **more}


def error_of(case: Case, variant: str, error: BaseException) -> dict[str, str]:
    """What failed, in a line, and where."""
    where = "".join(traceback.format_exception(error)[-3:])
    line = f"{type(error).__name__}: {error}".strip().split("\n")[0]
    return _note(case, variant, error=line, trace=where)
