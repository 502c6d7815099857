"""The decode step can be captured: it never asks the device for a value, and its tensors stay in place."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from elastic import Budget, Markers, Phase, Sampling, Source, ops
from elastic.budget.machine import compile_budgets
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.cache.slot_cache import SlotCache
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step.slot_sampling import SlotSampling
from elastic.rollout.step.step import WINDOW, Slots, emit, forward, new_slots
from tests.rollout.small_models import VOCAB, make_model

ROWS, COLUMNS = 4, 32
MARKERS = Markers((2,), (3,), "<think>", "</think>")
SAMPLINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.0),
    Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.05),
]


def in_flight(model, masks: bool):
    budget = Budget(6, 6, closing=(9, 3, 10), on_reopen="forbid" if masks else "count")
    machine, index = compile_budgets([budget], MARKERS, None, (1,), pad_id=0)
    slots = new_slots(ROWS, VOCAB, machine, torch.device("cpu"))
    prefix = prefill(model, [[6, 7, 2]], torch.device("cpu"))[0]
    cache = SlotCache(prefix, [Pool(ROWS, COLUMNS)])
    cache.insert(torch.arange(ROWS), prefix)
    slots.logits[:] = prefix.logits
    slots.positions[:] = 3
    slots.state[:] = ops.new_state(index.expand(ROWS), machine)
    slots.seeds.copy_(torch.arange(ROWS))
    return slots, machine, cache


def step(model, slots, machine, cache, sampling, number=0, entry=None):
    drawn = SlotSampling([sampling] * ROWS, ROWS, torch.device("cpu"))
    emit(slots, machine, drawn, ROWS, entry)
    forward(model, cache, slots, ROWS, 4 + number)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("masks", [False, True])
def test_no_step_reads_device_memory_on_the_host(family, sampling, masks):
    model = make_model(family)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad():
        slots, machine, cache = in_flight(model, masks)
        step(model, slots, machine, cache, sampling)  # the same step on real tensors first
        slots = Slots(**{name: mode.from_tensor(value) for name, value in vars(slots).items()})
        fakes = {name: mode.from_tensor(getattr(machine, name)) for name in ("tables", "token_flags")}
        machine = replace(machine, **fakes)
        for layer in cache.slot_layers:
            layer.keys, layer.values = map(mode.from_tensor, layer.stores)
        with mode:
            step(model, slots, machine, cache, sampling, 1)
            with pytest.raises(DataDependentOutputException):
                bool((slots.tokens == 1).any())  # what such a read would have done


@pytest.mark.parametrize("begin", [0, WINDOW - 3])
def test_the_log_is_the_same_whoever_counts_its_entries(model, begin):
    def log_of(by_host):
        slots, machine, cache = in_flight(model, False)
        slots.entry.fill_(begin)
        for number in range(8):
            entry = (begin + number) % WINDOW if by_host else None
            step(model, slots, machine, cache, SAMPLINGS[0], number, entry)
        return slots.log

    with torch.no_grad():
        ours, theirs = log_of(False), log_of(True)
    for one, other in zip(ours, theirs, strict=True):
        assert one.count_nonzero() > 0
        assert torch.equal(one, other)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_steps_work_in_place(model, sampling):
    with torch.no_grad():
        slots, machine, cache = in_flight(model, False)

        def addresses():
            stores = [store for layer in cache.slot_layers for store in layer.stores]
            return [tensor.data_ptr() for tensor in (*vars(slots).values(), *stores)]

        before = addresses()
        for number in range(10):
            step(model, slots, machine, cache, sampling, number)
        assert addresses() == before
        assert slots.positions.tolist() == [13] * ROWS


def test_a_finished_row_emits_padding_and_leaves_the_others_alone(model):
    def log_of(finish: bool):
        torch.manual_seed(0)
        slots, machine, cache = in_flight(model, False)
        if finish:
            done = torch.tensor([int(Phase.DONE)], dtype=torch.int32)
            slots.state[1] = ops.new_state(torch.zeros(1, dtype=torch.int64), machine, phase=done)[0]
            slots.logits[1] = float("nan")  # a free slot's leftovers are never read
        for number in range(8):
            step(model, slots, machine, cache, SAMPLINGS[0], number)
        assert slots.signal[1] == 0
        return [part[:8] for part in slots.log]

    with torch.no_grad():
        running, finished = log_of(False), log_of(True)
    assert finished[0][:, 1].tolist() == [0] * 8
    assert finished[1][:, 1].tolist() == [Source.PAD] * 8
    others = [0, 2, 3]
    for one, other in zip(running, finished, strict=True):
        assert torch.equal(one[:, others], other[:, others])
