"""How an engine takes its decode steps: one launch after the other, recorded and replayed, compiled.

S slots, n of them in use.

On a GPU a step is short and its launches from Python are not. So a step, drawing and forward together, is
recorded once for each bucket of rows and columns and then replayed. Recordings and the buffers that they work
on are the engine's and outlive a call of `generate`: a training run calls it hundreds of times.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from elastic.budget.machine import Machine
from elastic.rollout.attention.slot_attention import MASKED, SlotAttention
from elastic.rollout.cache.slot_cache import Prefix, SlotCache
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step import signature
from elastic.rollout.step.buckets import bucket, quarter
from elastic.rollout.step.compiled import CompiledForward, Shape
from elastic.rollout.step.graphs import Graphs, Work
from elastic.rollout.step.slot_sampling import SlotSampling
from elastic.rollout.step.step import Slots, emit, forward, new_slots
from elastic.rollout.step.workspace import Workspace
from elastic.sampling import Sampling

_LEAST_COLUMNS = 256  # that a recording reads: fewer would save nothing
KEPT_SHARE = 8  # buffers may take one eighth of the device's memory between calls
_MOST_RECORDINGS = 64  # the oldest goes; each holds host and device memory for its launches


@dataclass
class _Call:
    """What the steps of one call work on, and what recordings depend on besides the cache.

    Attributes:
        key: part of a recording's key: budgets by address, sampling by value or, where rows differ, address.
        model: signature of the model and of torch's modes.
        cache, allocations: the cache that was last looked at, as it was then.
    """

    slots: Slots
    machine: Machine
    sampling: SlotSampling
    key: signature.Signature = ()
    model: signature.Signature = ()
    cache: SlotCache | None = None
    allocations: int = 0


class Stepper:
    """Takes decode steps, for one call after the other.

    Args:
        model: whose forward a step runs.
        compile: "on", "off" or "auto", as in `CompiledForward`.
        graphs: what records; None records nothing.
        attention: of the rows over their slots.
    """

    def __init__(
        self,
        model: Any,
        compile: str = "off",
        graphs: Graphs | None = None,
        attention: SlotAttention = MASKED,
    ):
        self._model, self._graphs, self._attention = model, graphs, attention
        self._compiled = CompiledForward(compile)
        self._space = Workspace()
        self._recordings: dict[tuple, Work | None] = {}  # None: ran once as it is
        self._made_for: signature.Signature = ()  # the model, buffers and modes that the recordings know
        self._call: _Call | None = None
        self._lent = self._finished = False

    @property
    def plain(self) -> bool:
        """Whether steps are neither recorded nor compiled; nothing is kept then."""
        return self._graphs is None and self._compiled.off

    @property
    def records(self) -> bool:
        """Whether a step is taken as a whole, by `step`, not as `emit` and `forward`."""
        return self._graphs is not None

    def rows(self, live: int) -> int:
        """Rows that a step of so many live ones computes, where slots behind them are free."""
        return bucket(live, live * 2) if self.records else live

    @contextmanager
    def lend(self) -> Iterator[Stepper]:
        """The stepper for one call. A call inside a call, say from a callback, gets another one."""
        if self._lent:
            yield Stepper(self._model, attention=self._attention)
            return
        self._lent, self._finished = True, False
        try:
            yield self
        finally:
            # Nobody knows what buffers of a failed call hold, and large ones may be in the way of training.
            if not self._finished or self._takes_much():
                self.release()
            self._lent, self._call = False, None

    @contextmanager
    def no_gradients(self) -> Iterator[None]:
        """What steps, and whatever makes their tensors, run under."""
        # torch.compile, and buffers that outlive the call, need ordinary tensors.
        with torch.inference_mode(self.plain), torch.no_grad():
            yield

    def finish(self) -> None:
        """Says that the call came to its end, so that what it leaves can be used again."""
        self._finished = True

    def _takes_much(self) -> bool:
        return self._graphs is not None and self._space.bytes * KEPT_SHARE > self._graphs.memory_bytes

    def release(self) -> None:
        """Frees the buffers and the recordings; the next call makes them again."""
        self._drop_recordings()
        self._space.release()

    # Buffers

    def open(
        self,
        slots: int,
        vocab: int,
        machine: Machine,
        samplings: Sequence[Sampling],
        device: torch.device,
        steps: int,
    ) -> tuple[Slots, Machine, SlotSampling]:
        """Begins a call.

        Args:
            samplings: of the rows.
            steps: about how many there will be.

        Returns:
            At least as many free slots, the machine on the device, and what the rows in the slots draw by.
        """
        self._check_device(device)
        most_kept = max((sampling.recorded for sampling in samplings), default=0)
        if self.plain:
            self._space.release()
            machine = machine.to(device)
            free = new_slots(slots, vocab, machine, device, most_kept)
        else:
            self._compiled.begin(steps)
            machine = self._space.machine(machine, device)
            free = self._space.slots(slots, vocab, machine, device, most_kept)
        sampling = SlotSampling(samplings, len(free.tokens), device)
        self._call = _Call(free, machine, sampling)
        if self.records:
            tables = signature.addresses([machine.tables, machine.token_flags])
            drawing = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
            self._call.key = (tables, *(signature.of_value(value) for value in drawing))
            self._call.model = (signature.of_model(self._model), signature.of_process(device))
        return free, machine, sampling

    @property
    def held_bytes(self) -> int:
        """Bytes of the KV cache that is kept from the call before; the next one takes it, or its memory."""
        return self._space.cache_bytes

    def cache(self, prefix: Prefix, pools: Sequence[Pool]) -> SlotCache:
        """A cache for the slots, at least as long as the pools say, for prompts shaped like this one."""
        return SlotCache(prefix, pools) if self.plain else self._space.cache(prefix, pools)

    @property
    def _now(self) -> _Call:
        assert self._call is not None  # `open` comes first
        return self._call

    # Steps

    def forward(self, cache: SlotCache, used: int, columns: int) -> None:
        """The model's part of a step, `step.forward`."""
        if self._compiled.off:
            return forward(self._model, cache, self._now.slots, used, columns, self._attention)
        rows, columns, shape = self._sizes(cache, used, columns)
        self._forward(cache, rows, columns, shape)

    def step(self, cache: SlotCache, used: int, columns: int) -> None:
        """A whole step, `step.emit` and `step.forward`; the log's entry is counted on the device.

        The first step of a kind runs as it is, which sets up libraries; the second is recorded.
        """
        call = self._now
        self._follow(call, cache)
        rows, columns, shape = self._sizes(cache, used, columns)
        pools = cache.cursor.counts if len(cache.cursor.pools) > 1 else [rows]
        key = (tuple(pools), columns, shape, call.key)

        def work() -> None:
            emit(call.slots, call.machine, call.sampling, rows)
            with _no_kept_casts():
                self._forward(cache, rows, columns, shape)

        if self._graphs is None:
            return work()
        if key not in self._recordings:
            self._graphs.warm(work)
            self._recordings[key] = None
            return None
        replay = self._recordings[key] or self._record(work)
        if replay is None:
            return work()
        self._recordings[key] = replay
        replay()
        cache.cursor.columns = columns  # a compaction moves as many; the replay runs no Python that says so

    def _record(self, work: Work) -> Work | None:
        assert self._graphs is not None
        while len(self._recordings) > _MOST_RECORDINGS:
            oldest = self._recordings.pop(next(iter(self._recordings)))
            if oldest is not None and not any(self._recordings.values()):
                self._graphs.forget()
        try:
            return self._graphs.capture(work)
        except RuntimeError as error:
            self._stop_recording(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return None

    def _sizes(self, cache: SlotCache, used: int, columns: int) -> tuple[int, int, Shape | None]:
        """Rows and columns that a step computes, and the shape it is compiled for, if it is.

        Rows behind those in use are done: they emit padding and write into their own slots. Where slots lie
        in several pools there are none, as their numbers depend on how many of each are in use.
        """
        slots, capacity = min(len(self._now.slots.tokens), cache.slots), cache.capacity
        several = len(cache.cursor.pools) > 1
        if not several or used == slots:
            shape = Shape(quarter(used, slots), slots, capacity)
            if self._compiled.due(shape):
                return shape.rows, capacity, shape
            self._compiled.took(shape)
        return used if several else bucket(used, slots), self._columns(columns, capacity), None

    def _columns(self, columns: int, capacity: int) -> int:
        return capacity if self._attention.by_lengths else bucket(columns, capacity, _LEAST_COLUMNS)

    def _forward(self, cache: SlotCache, rows: int, columns: int, shape: Shape | None) -> None:
        arguments = (self._model, cache, self._now.slots, rows, columns, self._attention)
        if shape is None:
            forward(*arguments)
        else:
            self._compiled(shape, *arguments)

    # What recordings rest on

    def _follow(self, call: _Call, cache: SlotCache) -> None:
        """Drops the recordings where something that they know has moved."""
        if call.cache is cache and call.allocations == cache.allocations:
            return
        call.cache, call.allocations = cache, cache.allocations
        # Slots of other numbers and lengths may take as much memory, and be given the same addresses.
        made_for = (call.model, signature.addresses(self._space.tensors), tuple(cache.cursor.pools))
        if made_for != self._made_for:
            self._drop_recordings()
            self._made_for = made_for

    def _drop_recordings(self) -> None:
        self._made_for = ()
        if self._recordings:
            self._recordings.clear()
            if self._graphs is not None:
                self._graphs.forget()

    def _check_device(self, device: torch.device) -> None:
        if self._graphs is None:
            return
        device = torch.empty(0, device=device).device  # "cuda" is the current one
        used = {tensor.device for tensor in (*self._model.parameters(), *self._model.buffers())}
        if used != {device}:
            names = ", ".join(sorted(map(str, used)))
            self._stop_recording(f"the model lies on {names}, the engine's device is {device}")

    def _stop_recording(self, reason: str) -> None:
        warnings.warn(
            f"decode steps are not captured in CUDA graphs, so each is launched from Python: {reason}",
            stacklevel=2,
        )
        self._drop_recordings()
        self._graphs = None


@contextmanager
def _no_kept_casts() -> Iterator[None]:
    """Autocast keeps casts of weights until it is left, and a recording would go on reading these."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
