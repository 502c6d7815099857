"""Sampling on devices with less shared memory than sm_90: every launch fits and draws the same bits."""

from types import ModuleType

import pytest
import torch

from elastic import ops
from tests.sampling.draws import DTYPES, assert_like_reference, assert_same, batch

# Compute capability, KB of shared memory that a block may have, KB of an SM.
DEVICES = {
    "sm_75": (7, 64, 64),
    "48 KB": (7, 48, 48),
    "sm_80": (8, 163, 164),
    "sm_86 and sm_89": (8, 99, 100),
    "sm_110": (11, 227, 228),
    "sm_120": (12, 99, 100),
}
# Just below and above what fits into a block, and into a cluster of 8, where a block has 99 KB.
VOCABULARIES = [1, 1_031, 15_000, 17_000, 25_000, 128_000, 137_000, 195_000, 262_144, 400_000]
FILTERS = [{}, {"top_k": 50, "top_p": 0.9, "min_p": 0.01}]


@pytest.fixture
def pretend(launch: object, shim: ModuleType) -> ModuleType:
    """Ops run on the CUDA kernels, on the device last asked for."""
    return shim


@pytest.mark.parametrize("settings", FILTERS, ids=["unfiltered", "filtered"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_vocabulary_is_drawn_on_every_device(pretend, dtype, settings):
    call = batch(1, 151_936, dtype)
    expected = assert_like_reference(*call, **settings)  # sm_90
    for name, device in DEVICES.items():
        pretend.set_device(*device)
        got = ops.sample(*call, **settings)
        for part in ("tokens", "logprobs", "full_logprobs"):
            assert torch.equal(getattr(got, part), getattr(expected, part)), name


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("device", ["sm_86 and sm_89", "sm_120", "48 KB"])
def test_every_vocabulary_is_launched_on_a_small_device(pretend, device, vocab):
    call = batch(1, vocab)
    expected = [ops.sample(*call, **settings) for settings in FILTERS]
    pretend.set_device(*DEVICES[device])
    for settings, want in zip(FILTERS, expected, strict=True):
        assert_same(ops.sample(*call, **settings), want)


def test_the_pretended_device_refuses_more_than_it_has(launch, pretend):
    """Without this the tests above could not fail."""
    logits, targets = torch.zeros(1, 40_000), torch.zeros(1, dtype=torch.int64)
    launch((1, 64))  # 160,000 bytes in one block
    ops.token_logprobs(logits, targets)
    pretend.set_device(8, 99, 100)
    with pytest.raises(RuntimeError, match=r"launch failed for .* invalid argument"):
        ops.token_logprobs(logits, targets)
    for capability, largest in ((8, 1), (10, 16), (12, 8)):
        pretend.set_device(capability)
        for cluster in (2, 8, 16):
            launch((cluster, 64))
            if cluster <= largest:
                ops.token_logprobs(logits, targets)
            else:
                with pytest.raises(RuntimeError, match=r"launch failed for .* invalid configuration"):
                    ops.token_logprobs(logits, targets)


@pytest.mark.parametrize("device", DEVICES)
def test_no_row_asks_for_a_larger_cluster_or_more_memory_than_the_device_has(pretend, device):
    capability, block_kb, sm_kb = DEVICES[device]
    pretend.set_device(capability, block_kb, sm_kb)
    for dtype in (torch.float32, torch.bfloat16):
        for vocab in (1, 1_031, 32_000, 50_257, 128_256, 151_936, 262_144, 400_000, 700_001, 1_000_003):
            for rereads in (False, True):
                _, cluster, _, shared_bytes = pretend.logits_launch(dtype, vocab, rereads)
                assert cluster <= {7: 1, 8: 1, 11: 8, 12: 8}[capability]
                assert shared_bytes <= block_kb * 1024
