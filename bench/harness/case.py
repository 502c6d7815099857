"""One op at one shape, and the ways to compute it that are timed against each other.

To add a baseline to an op, append a `Variant` to the list in the op's file: `make` returns the call, `check`
is the one its neighbours have, `needs` names the packages it wants.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.harness.compare import Timing
from bench.harness.device import Device

CEILING = "read + write in place"  # the variant that memory traffic is held against
COMPILED = "torch.compile"  # the variant that takes half a minute to make
COMPILER = "a C++ compiler"
CHUNKED_CROSS_ENTROPY = "torch >= 2.13"


def _nothing(_: Any) -> None:
    return None


def _not_here() -> Callable[[int], Any]:
    raise NotImplementedError("a variant without a call needs skip=")


def _no_values(_: str, __: Mapping[str, Timing]) -> Mapping[str, Any]:
    return {}


@dataclass
class Variant:
    """One way to do a job.

    Attributes:
        make: builds the timed call, which gets the round's number; imports, compilation and graph capture
            happen here, and may fail.
        check: gets what the call returned for round 0; raises AssertionError where that is wrong.
        prepare: untimed, before each call.
        repeats: how often one call does the work; the figure is a single one's.
        needs: distributions, or keys of `PROBES`, without which it is skipped by name.
        bytes: memory traffic that it needs at least, where that is not the case's.
        floor: not a way to do the job, but what no way can do without.
        lead: makes what the call does besides the job; it is timed too, and taken off.
        skip: why it cannot be had here; empty where it can.
        takes_s: about how long making it takes; where less time is left it is skipped by name.
    """

    name: str
    make: Callable[[], Callable[[int], Any]] = _not_here
    check: Callable[[Any], None] = _nothing
    prepare: Callable[[int], object] = _nothing
    repeats: int = 1
    needs: tuple[str, ...] = ()
    bytes: int | None = None
    floor: bool = False
    lead: Callable[[], Callable[[int], Any]] | None = None
    skip: str = ""
    takes_s: float = 0.0

    @property
    def kind(self) -> str:
        """`ours`, `baseline` or `floor`."""
        if self.floor:
            return "floor"
        return "ours" if self.name.startswith("elastic") else "baseline"


@dataclass
class Case:
    """Attributes:
    shape: sizes, as `N=256 V=151936`.
    bytes: least traffic of memory that the op needs, or None where memory is not its floor.
    baseline: the variant that the others are compared with.
    model: the model that the shape is from.
    axis, at: the size that a scaling curve runs over, and its value here.
    items: tokens, or whatever is made, of one call.
    work: where calls differ in what they make: each variant appends its items of each timed call here.
    extra: further values of a variant's row, by its name and the rounds of all variants.
    clock: instead of the device's, `wall` for work of other processes, which this one's clock does not see.
    """

    op: str
    shape: str
    dtype: str
    variants: Sequence[Variant]
    bytes: int | None = None
    baseline: str = "eager"
    model: str | None = None
    axis: str | None = None
    at: int | None = None
    items: int | None = None
    work: Mapping[str, list[int]] | None = None
    extra: Callable[[str, Mapping[str, Timing]], Mapping[str, Any]] = _no_values
    clock: str | None = None

    def without(self, *names: str) -> "Case":
        """The same, but for the named variants."""
        return replace(self, variants=[variant for variant in self.variants if variant.name not in names])

    def on_axis(self, axis: str, at: int, *names: str) -> "Case":
        """The same as a point of a curve, with the named variants alone."""
        kept = [variant for variant in self.variants if variant.name in names]
        return replace(self, axis=axis, at=at, variants=kept)


PROBES: dict[str, Callable[[], bool]] = {
    COMPILER: lambda: shutil.which(os.environ.get("CXX", "g++")) is not None,
    CHUNKED_CROSS_ENTROPY: lambda: hasattr(torch.nn, "LinearCrossEntropyOptions"),
}


def available(need: str) -> bool:
    """Whether a distribution is installed, or what a probe looks for is there."""
    if need in PROBES:
        return PROBES[need]()
    try:
        importlib.metadata.version(need)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def compiler_for(device: Device) -> tuple[str, ...]:
    """What torch.compile needs on this device."""
    return ("triton",) if device.is_cuda else (COMPILER,)


def ceiling(device: Device, like: Tensor) -> Variant:
    """Reads and writes as much memory as `like` has, in place, in words of 32 bits: the memory's own rate."""
    flat = like.detach().clone().flatten()
    work = flat[: len(flat) // 2 * 2].view(torch.float32)

    def run(_: int) -> Tensor:
        return work.neg_()

    def flush(_: int) -> None:
        device.flush_cache()

    return Variant(CEILING, lambda: run, prepare=flush, bytes=2 * nbytes(like), floor=True)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
