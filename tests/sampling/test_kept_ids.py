"""The ids that filters left of a row (`most_kept`): the reference, hand-made rows, budgets, limits."""

import math

import pytest
import torch

from elastic import Budget, Markers, Phase, ops, reference
from elastic.budget.machine import compile_budgets
from tests.sampling.draws import DTYPES, SETTINGS, assert_same, batch

pytestmark = pytest.mark.usefixtures("kernels")

ROW = torch.tensor([[math.log(p) for p in (1, 4, 2, 3)]])  # probabilities 0.1, 0.4, 0.2, 0.3
ZERO = torch.zeros(1, dtype=torch.int64)


def listed(out):
    """Of each row its ids, or how many there were where they are not listed."""
    most = out.kept_ids.shape[1]
    counts = out.kept_counts.tolist()
    return [ids[:n].tolist() if n <= most else n for ids, n in zip(out.kept_ids, counts, strict=True)]


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 3]),
        ({"top_p": 0.75}, [1, 2, 3]),  # 0.4 + 0.3 do not reach it
        ({"top_p": 0.65}, [1, 3]),
        ({"min_p": 0.6}, [1, 3]),
        ({"top_k": 3, "top_p": 0.7, "min_p": 0.9}, [1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({}, []),  # no filter
        ({"temperature": 0.0, "top_k": 2}, []),
    ],
    ids=str,
)
def test_hand_made_row(settings, ids):
    assert listed(ops.sample(ROW, ZERO, ZERO, **settings, most_kept=4)) == [ids]


def test_a_tie_at_the_threshold_is_kept_and_what_is_never_drawn_is_not():
    tied = torch.tensor([[0.0, 1.0, 0.0, -math.inf, -99.0]])
    assert listed(ops.sample(tied, ZERO, ZERO, top_k=2, most_kept=8)) == [[0, 1, 2]]
    assert listed(ops.sample(tied, ZERO, ZERO, top_k=5, most_kept=8)) == [[0, 1, 2]]


def test_more_than_the_limit_are_counted_and_not_listed():
    assert listed(ops.sample(ROW, ZERO, ZERO, top_k=3, most_kept=2)) == [3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [37, 4097])
def test_ids_are_the_references_and_the_draw_is_the_same_without_them(dtype, settings, vocab):
    logits, seeds, positions = batch(5, vocab, dtype)
    logits[1, ::3] = -math.inf
    got = ops.sample(logits, seeds, positions, **settings, most_kept=60)
    want = reference.sample(logits, seeds, positions, **settings, most_kept=60)
    assert listed(got) == listed(want)
    plain = ops.sample(logits, seeds, positions, **settings)
    assert_same(got, plain)
    assert plain.kept_ids is None


def test_rows_may_differ_in_their_filters():
    logits = ROW.repeat(3, 1)
    rows = torch.arange(3)
    out = ops.sample(logits, rows, rows, top_k=torch.tensor([0, 1, 3]), most_kept=4)
    assert listed(out) == [[], [1], [1, 2, 3]]


def test_forced_and_masked_tokens():
    """A forced row has no ids; a masked start marker is none of a row's."""
    budgets = [Budget(0, 4), Budget(4, 4, on_reopen="forbid")]
    machine, index = compile_budgets(budgets, Markers((2,), (3,)), None, [0], 99)
    state = ops.new_state(index, machine, phase=torch.tensor([Phase.THINKING, Phase.SOLUTION]).int())
    rows, logits = torch.arange(2), torch.zeros(2, 117)
    logits[:, 2], logits[:, 7] = 9.0, 8.0
    out = ops.sample(logits, rows, rows, top_k=1, state=state, machine=machine, most_kept=4)
    assert out.source.tolist() == [1, 0]
    assert listed(out) == [[], [7]]


def test_broken_rows_have_none():
    logits = torch.stack([ROW[0], ROW[0] * math.nan])
    broken = torch.zeros(1, dtype=torch.int32)
    rows = torch.arange(2)
    out = ops.sample(logits, rows, rows, top_k=1, most_kept=4, broken=broken)
    assert listed(out) == [[1], []]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draws_logprob_is_its_logprob_among_the_kept_ids(dtype):
    """Why the ratio of the first update is 1: both are taken over the same ids."""
    logits, seeds, positions = batch(64, 999, dtype)
    out = ops.sample(logits, seeds, positions, 0.7, top_p=0.9, top_k=50, min_p=0.01, most_kept=50)
    counts = out.kept_counts.long()
    assert (counts > 1).any()
    ids = out.kept_ids[torch.arange(50) < counts[:, None]]
    offsets = torch.cat([ZERO, counts.cumsum(0)])
    again, _ = ops.token_logprobs(logits, out.tokens, 0.7, kept_ids=ids, kept_offsets=offsets)
    torch.testing.assert_close(again, out.logprobs, rtol=0, atol=2e-6)
    full, _ = ops.token_logprobs(logits, out.tokens, 0.7)
    assert (out.logprobs - full).max() > 0.05


def test_wrong_limits_are_refused():
    with pytest.raises(ValueError, match=r"sample: most_kept: expected 0 .off. to 4194304, got -1"):
        ops.sample(ROW, ZERO, ZERO, most_kept=-1)
    with pytest.raises(TypeError, match=r"sample: most_kept: expected an integer, got 1.5"):
        ops.sample(ROW, ZERO, ZERO, most_kept=1.5)


def test_the_op_is_registered_with_kept_ids():
    options = {"temperature": 0.8, "top_k": 3, "top_p": 1.0, "min_p": 0.0, "most_kept": 2}
    options |= dict.fromkeys(("temperatures", "top_ks", "top_ps", "min_ps"))
    torch.library.opcheck(torch.ops.elastic.sample.default, (ROW, ZERO, ZERO), options)
