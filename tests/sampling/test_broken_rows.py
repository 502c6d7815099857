"""Rows that have to be drawn from logits with NaN or +inf, or nothing but -inf: they take no step."""

import pytest
import torch

from elastic import Budget, Markers, Phase, Source, ops, reference
from elastic.budget.machine import compile_budgets
from tests.cuda_on_cpu.redirect import redirected
from tests.sampling.draws import DTYPES, SETTINGS, batch

FIELDS = ("tokens", "logprobs", "full_logprobs", "source", "phase")
PAD, START, END, EOS, X = 9, 2, 3, 0, 6  # id 0 ends a row: a broken row that counted as 0 would be done
VOCAB, INF = 12, float("inf")
MACHINE, INDEX = compile_budgets(
    [Budget(3, 3), Budget(0, 2), Budget(4, 6, on_eos="stop")], Markers((START,), (END,)), None, [EOS], PAD
)
# Free in the solution, forced, free while thinking, finished, free and about to end by its budget.
PHASES = torch.tensor(
    [Phase.SOLUTION, Phase.THINKING, Phase.THINKING, Phase.DONE, Phase.SOLUTION], dtype=torch.int32
)
BUDGETS = torch.tensor([0, 1, 2, 0, 1])


def states() -> torch.Tensor:
    state = ops.new_state(BUDGETS, MACHINE, phase=PHASES)
    ops.budget_step_(torch.tensor([X, X, X, X, X]), state, MACHINE)
    state[1] = ops.new_state([1], MACHINE)[0]  # forced again
    return state


def count() -> torch.Tensor:
    return torch.full((1,), 7, dtype=torch.int32)


@pytest.mark.parametrize("kind", [float("nan"), INF, -INF], ids=str)
@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_broken_row_emits_padding_and_takes_no_step_while_the_others_go_on(kernels, kind, settings, dtype):
    logits, seeds, positions = batch(5, VOCAB, dtype)
    logits[:, [EOS, END]] = -INF
    clean, clean_state = logits.clone(), states()
    expected = ops.sample(clean, seeds, positions, **settings, state=clean_state, machine=MACHINE)
    logits[[1, 3]] = float("nan")  # never read: one row is forced, the other finished
    logits[0, :] = kind if kind == -INF else logits[0, :]
    logits[2, :] = kind if kind == -INF else logits[2, :]
    logits[0, 5] = logits[2, 11] = kind
    state, before = states(), states()
    active, broken = count(), torch.zeros(1, dtype=torch.int32)
    out = ops.sample(
        logits, seeds, positions, **settings, state=state, machine=MACHINE, active=active, broken=broken
    )
    assert broken.item() == 1
    assert torch.equal(state[[0, 2]], before[[0, 2]])
    assert out.tokens[[0, 2]].tolist() == [PAD, PAD]
    assert out.source[[0, 2]].tolist() == [Source.PAD, Source.PAD]
    assert out.phase[[0, 2]].tolist() == [Phase.SOLUTION, Phase.THINKING]
    assert (
        out.logprobs.isnan().tolist()
        == out.full_logprobs.isnan().tolist()
        == [True, False, True, False, False]
    )
    others = [1, 3, 4]
    assert torch.equal(state[others], clean_state[others])
    for name in FIELDS:
        assert torch.equal(getattr(out, name)[others], getattr(expected, name)[others]), name
    assert (
        active.item() == 3
    )  # both broken rows and the forced one: one was finished, one has spent its budget


@pytest.mark.parametrize("rows", [5, 400])  # by one thread, and by as many as there are
def test_without_a_flag_the_error_names_the_row_and_nothing_has_moved(rows):
    repeat = torch.arange(rows) % 5
    logits, seeds, positions = batch(rows, 1000)
    logits[repeat == 2] = float("nan")
    state, active = states()[repeat], count()
    tensors = [logits, seeds, positions, state, active]
    before = [tensor.clone() for tensor in tensors]
    with pytest.raises(RuntimeError, match=r"^sample: logits: row 2 holds NaN or \+inf, or nothing but -inf"):
        ops.sample(logits, seeds, positions, state=state, machine=MACHINE, active=active)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(tensors, before, strict=True))
    assert torch.equal(state, before[3])
    assert active.item() == 7


def test_the_same_call_succeeds_after_the_error_as_if_there_had_been_none():
    logits, seeds, positions = batch(5, VOCAB)
    first, second = states(), states()
    want = ops.sample(logits, seeds, positions, state=first, machine=MACHINE)
    with pytest.raises(RuntimeError, match="row 4 holds"):
        ops.sample(
            logits.index_fill(0, torch.tensor(4), INF), seeds, positions, state=second, machine=MACHINE
        )
    got = ops.sample(logits, seeds, positions, state=second, machine=MACHINE)
    assert torch.equal(first, second)
    assert all(torch.equal(getattr(got, name), getattr(want, name)) for name in FIELDS)


def test_a_parameter_out_of_range_on_a_device_breaks_its_row_only(shim):
    logits, seeds, positions = batch(5, VOCAB)
    state, before, broken = states(), states(), torch.zeros(1, dtype=torch.int32)
    top_p = torch.tensor([1.0, 7.0, 7.0, 7.0, 1.0])  # the forced and the finished row need none
    with redirected():
        out = ops.sample(logits, seeds, positions, top_p=top_p, state=state, machine=MACHINE, broken=broken)
    assert broken.item() == 3
    assert torch.equal(state[2], before[2])
    assert out.tokens.tolist()[1:4] == [END, PAD, PAD]
    assert out.logprobs.isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_reference_does_the_same_over_a_whole_decode(kernels, settings):
    rows = 16
    state = ops.new_state(torch.arange(rows) % 3, MACHINE, phase=PHASES[torch.arange(rows) % 5])
    twin = state.clone()
    flags = [torch.zeros(1, dtype=torch.int32) for _ in range(4)]
    for step in range(8):
        logits, seeds, positions = batch(rows, VOCAB, seed=step)
        logits[:, [EOS, END, START]] += 1
        logits[step::5] = float("nan") if step % 2 else -INF
        keywords = {"machine": MACHINE, **settings}
        got = ops.sample(logits, seeds, positions, state=state, active=flags[0], broken=flags[1], **keywords)
        want = reference.sample(
            logits, seeds, positions, state=twin, active=flags[2], broken=flags[3], **keywords
        )
        for name in ("tokens", "source", "phase"):
            assert torch.equal(getattr(got, name), getattr(want, name)), name
        for name in ("logprobs", "full_logprobs"):
            a, b = getattr(got, name), getattr(want, name)
            torch.testing.assert_close(a, b, rtol=1.2e-7, atol=1e-12, equal_nan=True)
        assert torch.equal(state, twin)
        assert flags[:2] == flags[2:]
