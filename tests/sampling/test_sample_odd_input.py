"""Extreme logits, rows that cannot be drawn from, parameters out of range."""

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets
from tests.sampling.draws import DTYPES, SETTINGS, assert_like_reference, batch

INF = float("inf")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [7, 4100])
def test_extreme_logits_are_the_references(vocab, settings):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(vocab, generator=generator)
    half = noise.masked_fill(noise > 0, -INF)
    rows = [
        torch.zeros(vocab),  # all equal
        torch.full((vocab,), 3e38),
        torch.full((vocab,), -3e38),
        torch.full((vocab,), -INF).index_fill(0, torch.tensor([vocab - 1]), 0.0),  # one-hot
        1e4 * noise,
        3e38 * noise.tanh(),  # differences overflow
        1e-40 * noise,  # denormals
        half,
        torch.where(noise > 0, 0.0, -0.0),
        torch.cat([torch.full((vocab - 1,), -27.0), torch.zeros(1)]),  # a plateau of 2^-39 under one token
    ]
    ids = torch.arange(len(rows))
    assert_like_reference(torch.stack(rows), ids, ids, **settings)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-4, 1e4, 1e30])
def test_extreme_temperatures_are_the_references(temperature):
    logits, seeds, positions = batch(5, 3000)
    logits[0, 7] = -INF
    assert_like_reference(logits, seeds, positions, temperature=temperature)
    assert_like_reference(logits, seeds, positions, temperature=temperature, top_p=0.7)


@pytest.mark.parametrize("uniform_row", range(3))
def test_a_row_with_one_finite_logit_draws_it_whatever_the_random_number(uniform_row):
    logits = torch.full((3000, 3000), -INF).fill_diagonal_(0.0)[uniform_row::10]
    ids = torch.arange(len(logits))
    out = ops.sample(logits, ids, ids, 0.3, top_p=0.5)
    assert torch.equal(out.tokens, torch.arange(3000)[uniform_row::10])
    assert not out.logprobs.any()


def broken_row(vocab: int, kind: str, dtype: torch.dtype) -> torch.Tensor:
    row = torch.randn(vocab, generator=torch.Generator().manual_seed(1)).to(dtype)
    if kind == "all -inf":
        return torch.full_like(row, -INF)
    row[vocab // 2] = {"nan": float("nan"), "inf": INF}[kind]
    return row


@pytest.mark.parametrize("vocab", [5, 5000])
@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
@pytest.mark.parametrize("kind", ["nan", "inf", "all -inf"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_unusable_row_is_flagged_and_leaves_the_others_alone(vocab, settings, kind, dtype):
    logits, seeds, positions = batch(4, vocab, dtype)
    clean = ops.sample(logits, seeds, positions, **settings)
    logits[1] = logits[3] = broken_row(vocab, kind, dtype)
    broken = torch.zeros(1, dtype=torch.int32)
    out = ops.sample(logits, seeds, positions, **settings, broken=broken)
    assert broken.tolist() == [2], "1 + the first such row"
    assert out.logprobs.isnan().tolist() == [False, True, False, True]
    assert out.full_logprobs.isnan().tolist() == [False, True, False, True]
    assert ((out.tokens >= 0) & (out.tokens < vocab)).all()
    kept = torch.tensor([0, 2])
    for name in ("tokens", "logprobs", "full_logprobs"):
        assert torch.equal(getattr(out, name)[kept], getattr(clean, name)[kept])


def test_the_flag_keeps_the_first_row_ever_seen():
    logits, seeds, positions = batch(4, 50)
    logits[2] = float("nan")
    broken = torch.zeros(1, dtype=torch.int32)
    ops.sample(logits, seeds, positions, broken=broken)
    logits[0] = float("nan")
    ops.sample(logits, seeds, positions, broken=broken)
    assert broken.tolist() == [3]


def test_without_a_flag_an_unusable_row_is_an_error_that_names_it():
    logits, seeds, positions = batch(4, 50)
    logits[2] = -INF
    with pytest.raises(RuntimeError, match="sample: logits: row 2 holds NaN"):
        ops.sample(logits, seeds, positions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature: expected a finite number >= 0, got -0.1"),
        ({"temperature": INF}, "temperature: expected a finite number"),
        ({"temperature": float("nan")}, "temperature: expected a finite number"),
        ({"top_k": -1}, r"top_k: expected 0 \(off\) or more, got -1"),
        ({"top_p": 0.0}, r"top_p: expected a number in \(0, 1\]"),
        ({"top_p": 1.01}, "top_p: expected"),
        ({"min_p": -0.1}, "min_p: expected"),
        ({"min_p": 1.1}, "min_p: expected"),
        ({"top_p": torch.tensor([0.5, 2.0])}, "top_p: expected a number"),
    ],
    ids=str,
)
def test_a_parameter_out_of_range_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match="sample: " + message):
        ops.sample(*batch(2, 9), **settings)


def test_values_of_a_row_may_have_any_stride():
    logits, seeds, positions = batch(6, 500)
    plain = ops.sample(logits, seeds, positions, torch.full((6,), 0.7), top_k=torch.full((6,), 9))
    seeds, positions = (torch.stack([x, -x - 1], dim=1)[:, 0] for x in (seeds, positions))
    one = {"temperature": torch.tensor([0.7]).expand(6), "top_k": torch.tensor([9]).expand(6)}
    assert torch.equal(ops.sample(logits, seeds, positions, **one).tokens, plain.tokens)
    machine, index = compile_budgets([Budget(3, 4)], Markers((2,), (3,)), None, [0], 1)
    state = ops.new_state(index.expand(6), machine)
    under_budget = ops.sample(logits, seeds, positions, **one, state=state, machine=machine)
    assert torch.equal(under_budget.tokens, plain.tokens)
