"""One op at one shape, and the ways to compute it that are timed against each other."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.compare import Variant, compare
from bench.gpu.device import Device
from bench.results import ratio_to, row


def _nothing(_: Any) -> None:
    return None


@dataclass
class Candidate:
    """One way to do a job.

    Attributes:
        make: builds the timed call, which gets the round's number; imports, compilation and graph capture
            happen here, and may fail.
        check: gets what the call returned for round 0; raises AssertionError where that is wrong.
        prepare: untimed, before each call.
        repeats: how often one call does the work; the figure is a single one's.
    """

    name: str
    make: Callable[[], Callable[[int], Any]]
    check: Callable[[Any], None] = _nothing
    prepare: Callable[[int], object] = _nothing
    repeats: int = 1


@dataclass
class Job:
    """Attributes:
    bytes: least traffic of device memory that the op needs, or None where memory is not its floor.
    baseline: the candidate that the others are compared with.
    """

    op: str
    shape: str
    dtype: str
    candidates: Sequence[Candidate]
    bytes: int | None = None
    baseline: str = "eager"


@dataclass
class Outcome:
    """Rows of `bench.results`, and what is known of each candidate that failed.

    Attributes:
        device_lost: no further work can run in this process.
    """

    rows: list[dict[str, Any]]
    errors: list[dict[str, str]]
    device_lost: bool = False


def run_job(job: Job, device: Device, rounds: int, bytes_per_ms: float | None) -> Outcome:
    """Checks every candidate, then times those that are right, alternating.

    Args:
        bytes_per_ms: the measured ceiling of memory traffic.
    """
    calls: dict[str, tuple[Candidate, Callable[[int], Any]]] = {}
    peaks: dict[str, int | None] = {}
    errors = []
    for candidate in job.candidates:
        # One way that does not compile, load or compute must not cost the others; it is reported and makes
        # the run fail.
        try:
            call = candidate.make()
            candidate.prepare(0)
            candidate.check(call(0))
            candidate.prepare(0)
            peaks[candidate.name] = device.peak_bytes(lambda call=call: call(0))
            device.synchronize()
        except Exception as error:
            errors.append(error_of(job, candidate.name, error))
            if device.lost():
                return Outcome([], errors, device_lost=True)
        else:
            calls[candidate.name] = (candidate, call)
        device.release()
    variants = [Variant(name, call, candidate.prepare) for name, (candidate, call) in calls.items()]
    timings = compare(variants, rounds, warmup=2, clock=device.clock) if variants else {}
    rows = []
    for name, timing in timings.items():
        repeats = calls[name][0].repeats
        median = timing.median_ms()[0] / repeats
        share = None
        if job.bytes is not None and bytes_per_ms is not None:
            share = job.bytes / median / bytes_per_ms
        ratio = ratio_to(job.baseline, name, timings)
        if ratio is not None:
            ratio *= repeats / calls[job.baseline][0].repeats
        rows.append(
            row(
                op=job.op,
                shape=job.shape,
                dtype=job.dtype,
                device=str(device.torch),
                threads=torch.get_num_threads(),
                variant=name,
                median_ms=median,
                iqr_ms=timing.iqr_ms() / repeats,
                ratio_to_eager=ratio,
                bytes=job.bytes,
                ceiling_share=share,
                peak_bytes=peaks[name],
            )
        )
    return Outcome(rows, errors)


def error_of(job: Job, variant: str, error: BaseException) -> dict[str, str]:
    """What failed, in a line, and where."""
    where = "".join(traceback.format_exception(error)[-3:])
    line = f"{type(error).__name__}: {error}".strip().split("\n")[0]
    return {
        "op": job.op,
        "shape": job.shape,
        "dtype": job.dtype,
        "variant": variant,
        "error": line,
        "trace": where,
    }
