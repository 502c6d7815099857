"""The sampling kernels of CUDA, run on the CPU, on rows that a search for a threshold finds hard or easy.

They draw the CPU's bits. Bad guesses and full lists may only cost time.
"""

import math

import pytest
import torch
from torch import Tensor

from elastic import Budget, Markers, Phase, ops
from elastic.budget.machine import compile_budgets
from elastic.sampling import SampleOutput
from tests.cuda_on_cpu.launch_shapes import Shape
from tests.sampling.draws import DTYPES, assert_like_reference, assert_same, batch

INF = float("inf")
SHAPES: list[Shape] = [(0, 64), (4, 64)]
IDS = ["streamed", "cluster"]
FILTERS = [
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 1500},
    {"top_p": 1e-9},
    {"top_p": 0.95},
    {"top_p": 1 - 1e-12},
    {"top_k": 900, "top_p": 0.9, "min_p": 1e-4},
    {"min_p": 1.0},
]


def peaked(vocab: int, probability: float, noise: Tensor) -> Tensor:
    """2 noise, with one token of this probability."""
    row = 2 * noise
    row[vocab // 3] = math.log(probability / (1 - probability)) + torch.logsumexp(row, 0)
    return row


def hard_rows(vocab: int) -> Tensor:
    """Rows [13, vocab]; those of float32's whole range are smaller in float16."""
    generator = torch.Generator().manual_seed(vocab)
    noise = torch.randn(vocab, generator=generator)
    uniform = torch.rand(vocab, generator=generator)
    rows = [
        3 * noise,
        0.1 * noise,  # flat
        *(peaked(vocab, p, noise) for p in (0.5, 0.9, 0.99)),
        (3 * noise).floor(),  # ties
        torch.where(uniform < 0.5, 0.0, -0.0),  # all equal
        torch.where(uniform < 0.5, 1.0, 1 + 2**-7),  # two neighbours of bfloat16
        torch.where(uniform < 0.9, -INF, 3 * noise).index_fill(0, torch.tensor([0]), 1.0),
        torch.full((vocab,), -INF).index_fill(0, torch.tensor([vocab - 1]), -3e4),
        3e4 * (uniform - 0.5) * torch.where(noise < 1, 1e-3, 2.0),  # a wide range, with few large ones
        1e-40 * noise,  # subnormal
        -1.3 * torch.arange(1, vocab + 1).log(),  # a long tail, likely tokens in one place
    ]
    return torch.stack(rows)


def drawn(settings: dict, dtype: torch.dtype, vocab: int):
    rows = hard_rows(vocab).to(dtype)
    seeds, positions = batch(len(rows), 1)[1:]
    return ops.sample(rows, seeds, positions, **settings)


@pytest.fixture
def on_cpu(request) -> list:
    """The CPU's draws for FILTERS, before the ops are redirected."""
    dtype, vocab = request.param
    return [drawn(settings, dtype, vocab) for settings in FILTERS]


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("on_cpu", [(d, v) for d in DTYPES for v in (501, 6000)], indirect=True, ids=str)
def test_hard_rows_draw_the_cpus_bits(on_cpu, launch, shape, request):
    dtype, vocab = request.node.callspec.params["on_cpu"]
    launch(shape)
    for settings, want in zip(FILTERS, on_cpu, strict=True):
        assert_same(drawn(settings, dtype, vocab), want)


def test_lists_that_overflow_are_given_up(launch):
    """All that top-p may keep lies in one warp's segment: 125 logits a thread; its list takes 64."""
    vocab, likely = 60_000, 4_000
    row = torch.full((1, vocab), -20.0)
    row[0, :likely] = torch.rand(likely, generator=torch.Generator().manual_seed(0))
    row, ids = row.bfloat16(), torch.arange(1)
    launch((1, 256))
    got = ops.sample(row, ids, ids, top_p=0.4)
    launch((8, 64))
    assert_same(got, ops.sample(row, ids, ids, top_p=0.4))
    assert_like_reference(row, ids, ids, got=got, top_p=0.4)


MARKED = [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}]


@pytest.mark.parametrize("capability", [9, 12])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("at", [0, 2, 700, 1_230], ids=["in front", "second", "inside", "behind"])
@pytest.mark.parametrize("likeliest", [True, False])
def test_a_masked_marker_is_left_out_wherever_it_lies(launch, shim, likeliest, at, shape, capability):
    """A solution may not reopen its thoughts; the start marker is its likeliest token, or not."""
    vocab, eos = 1_231, 1
    launch(shape)
    shim.set_device(capability)
    machine, index = compile_budgets([Budget(4, 6, on_reopen="forbid")], Markers((at,), (3,)), None, [eos], 5)
    solution = torch.full((2,), int(Phase.SOLUTION), dtype=torch.int32)
    state = ops.new_state(index.expand(2).contiguous(), machine, phase=solution)
    memory = torch.zeros(2 * vocab + 8)
    logits, seeds, positions = batch(2, vocab)
    # In front and behind are less than whole vectors.
    logits = memory.as_strided((2, vocab), (vocab, 1), 1).copy_(logits)
    logits[:, eos] = -50.0
    logits[:, at] = 60.0 if likeliest else 5.0
    hidden = logits.clone()
    hidden[:, at] = -INF
    for settings in MARKED:
        got = ops.sample(logits, seeds, positions, state=state.clone(), machine=machine, **settings)
        want = ops.sample(hidden, seeds, positions, **settings)
        full = logits.double() / (settings.get("temperature", 1.0) or 1.0)
        assert at not in got.tokens.tolist()
        assert torch.equal(got.tokens, want.tokens)
        assert torch.equal(got.logprobs, want.logprobs)
        exact = full.log_softmax(-1).gather(1, got.tokens[:, None])[:, 0]
        torch.testing.assert_close(got.full_logprobs.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.fixture
def hot() -> tuple[dict, Tensor, SampleOutput]:
    """So hot that the logit of min-p's limit overflows; the lowest logits weigh 62 of 2^40, too little."""
    settings = {"temperature": 1.5e37, "min_p": 2**-33.5}
    row = torch.full((1, 5000), torch.finfo(torch.float32).min)
    row[0, 77] = 0
    return settings, row, ops.sample(row, *batch(1, 1)[1:], **settings)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_min_p_has_effect_at_any_temperature(hot, launch, shape):
    settings, row, want = hot
    launch(shape)
    assert want.tokens.tolist() == [77]
    assert want.logprobs.tolist() == [0]
    assert_same(ops.sample(row, *batch(1, 1)[1:], **settings), want)
