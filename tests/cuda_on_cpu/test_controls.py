"""The shim finds deliberate faults, and nothing in the same kernels without them."""

import re

import numpy as np
import pytest

SEEDS = range(40)
# Faults that show at every seed say what is wrong; the others show in the order of events.
ALWAYS = {
    "missing __syncthreads": None,
    "scratch reused too early": None,
    "missing __syncwarp": None,
    "divergent barrier": "divergent __syncthreads.* left the kernel",
    "two barriers for one": "divergent __syncthreads: this thread came to controls.cu:.*, another one to",
    "divergent shuffle": "divergent warp collective.* left the kernel",
    "shared memory not written": None,
    "left while a peer reads": None,
    "wrong parity": None,
    "missing barrier_init_fence": "bulk_copy: no barrier_init_fence",
    "too many bytes expected": "deadlock: thread .* waits for a barrier's phase at controls.cu",
    "out of a shared span": "out of bounds: index 127 of a span of 127",
    "out of a global span": "out of bounds: index -1 of a span of 128",
    "beside shared memory": "out of bounds: wrote beside the shared memory of block 0",
    "missing barrier_arrive": "deadlock: .*; in all 128 threads wait",
    "missing bulk_store_fence": None,
    "misaligned vector": "misaligned address: expected a multiple of 16 bytes, got one of 4",
}
OFTEN = [
    "missing cluster_sync",
    "missing barrier_wait",
    "too few bytes expected",
    "left during a bulk copy",
    "source of a bulk copy written",
    "too few arrivals counted",
    "stored before it was written",
    "source of a bulk store written",
    "left during a bulk store",
    "missing wait for a peer's store",
    "stored to a peer too early",
]


def outcome(shim, fault, sound, seed):
    """None if the control reversed its input, else what the shim said, or that the values are wrong."""
    values = np.arange(1, shim.controls()[fault] + 1, dtype=np.float32)
    shim.set_seed(seed)
    try:
        out = shim.run_control(fault, sound, values)
    except RuntimeError as error:
        return str(error)
    return None if np.array_equal(out, values[::-1]) else "wrong values"


def test_every_control_is_tested(shim):
    assert set(shim.controls()) == {*ALWAYS, *OFTEN}


@pytest.mark.parametrize("fault", [*ALWAYS, *OFTEN])
def test_a_sound_kernel_passes_at_every_seed(shim, fault):
    assert [outcome(shim, fault, True, seed) for seed in SEEDS] == [None] * len(SEEDS)


@pytest.mark.parametrize("fault", ALWAYS)
def test_a_fault_is_found_at_every_seed(shim, fault):
    found = [outcome(shim, fault, False, seed) for seed in SEEDS]
    assert None not in found
    message = ALWAYS[fault] or ""
    assert all(re.search(message, error) for error in found), found


@pytest.mark.parametrize("fault", OFTEN)
def test_a_fault_of_timing_is_found_at_most_seeds(shim, fault):
    found = [outcome(shim, fault, False, seed) for seed in SEEDS]
    assert found.count(None) < len(SEEDS) / 2


def test_a_seed_is_a_schedule(shim):
    for fault in OFTEN:
        assert outcome(shim, fault, False, 7) == outcome(shim, fault, False, 7)
