"""`ops.sample` with the budget step in it: the same as forcing, drawing and stepping one after the other."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from elastic import Budget, Markers, Phase, Source, ops, reference
from elastic.budget.machine import compile_budgets
from tests.sampling.draws import DTYPES, assert_like_reference, batch

PAD, EOS, START, END = 0, 1, 2, 3
VOCAB = 24
MARKERS = Markers((START,), (END,))
BUDGETS = [
    Budget(3, 3, closing=(9, END, 10)),
    Budget(0, 2),
    Budget(4, 6, on_reopen="forbid"),
    Budget(6, 4, on_eos="stop", notices=((2, (11, 12)),)),
]
INT32 = torch.int32


def machine_of():
    return compile_budgets(BUDGETS, MARKERS, None, [EOS], PAD)[0]


def rows_of(count: int):
    """Budgets and start phases of `count` rows, every combination in turn."""
    phases = torch.tensor([Phase.THINKING, Phase.OPENING, Phase.SOLUTION, Phase.DONE], dtype=INT32)
    index = torch.arange(count)
    return index % len(BUDGETS), phases[index // len(BUDGETS) % len(phases)]


STEP_SETTINGS = [{}, {"top_p": 0.8}, {"temperature": 0.0}, {"top_k": 6}]


def assert_one_op_does_all(seed: int, settings: dict, rows: int = 16, steps: int = 14) -> None:
    machine = machine_of()
    budgets, phases = rows_of(rows)
    state = ops.new_state(budgets, machine, phase=phases)
    apart = state.clone()
    active, expected_active = torch.zeros(1, dtype=INT32), torch.zeros(1, dtype=INT32)
    for position in range(steps):
        logits, seeds, _ = batch(rows, VOCAB, seed=seed + position)
        logits[:, [EOS, END, START]] += 2
        positions = torch.full((rows,), position)
        out = ops.sample(logits, seeds, positions, **settings, state=state, machine=machine, active=active)

        masked = logits.clone()
        reference.force_logits_(masked, apart, machine)
        drawn = reference.sample(masked, seeds, positions, **settings)
        tokens = drawn.tokens.clone()
        source = ops.budget_step_(tokens, apart, machine, active=expected_active)
        sampled = source == Source.SAMPLED
        assert torch.equal(out.tokens, tokens)
        assert torch.equal(out.source, source)
        assert torch.equal(out.phase, ops.last_phase(apart).to(torch.uint8))
        assert torch.equal(state, apart)
        assert torch.equal(active, expected_active)
        assert not out.logprobs[~sampled].any()
        assert not out.full_logprobs[~sampled].any()
        torch.testing.assert_close(out.logprobs[sampled], drawn.logprobs[sampled], rtol=1.2e-7, atol=1e-12)
        exact = (logits.double() / (settings.get("temperature", 1.0) or 1.0)).log_softmax(-1)
        exact = exact.gather(1, drawn.tokens[:, None])[:, 0].float()
        torch.testing.assert_close(out.full_logprobs[sampled], exact[sampled], rtol=1e-6, atol=3e-7)


@hypothesis_settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(STEP_SETTINGS))
def test_one_op_does_what_forcing_drawing_and_stepping_do(seed, settings):
    assert_one_op_does_all(seed, settings)


@pytest.mark.parametrize("settings", STEP_SETTINGS, ids=str)
def test_one_op_does_it_on_every_kernel(kernels, settings):
    assert_one_op_does_all(3, settings, steps=9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forced_and_finished_rows_do_not_read_their_logits(kernels, dtype):
    machine = machine_of()
    phase = torch.tensor([Phase.THINKING, Phase.DONE, Phase.SOLUTION], dtype=INT32)
    state = ops.new_state(torch.tensor([1, 0, 0]), machine, phase=phase)
    logits, seeds, positions = batch(3, VOCAB, dtype)
    logits[:2] = float("nan")
    broken = torch.zeros(1, dtype=INT32)
    out = ops.sample(logits, seeds, positions, state=state, machine=machine, broken=broken)
    assert broken.item() == 0
    assert out.tokens[:2].tolist() == [END, PAD]
    assert out.source.tolist() == [Source.FORCED, Source.PAD, Source.SAMPLED]
    assert out.logprobs[:2].tolist() == [0, 0]
    logits, _, _ = batch(3, VOCAB, dtype)
    logits[2] = float("nan")
    ops.sample(logits, seeds, positions, state=state, machine=machine, broken=broken)
    assert broken.item() == 3


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.4}])
@pytest.mark.parametrize("gap", [1.0, 1000.0])
def test_a_masked_token_is_never_drawn_and_full_logprobs_leave_the_mask_aside(kernels, settings, gap):
    machine, rows = machine_of(), 200 if kernels == "cpu" else 20
    state = ops.new_state(
        torch.full((rows,), 2), machine, phase=torch.full((rows,), int(Phase.SOLUTION), dtype=INT32)
    )
    logits, seeds, positions = batch(rows, VOCAB)
    logits[:, START] = logits.amax(1) + gap  # beside it the others have no weight at all
    logits[:, EOS] = -50
    out = ops.sample(logits, seeds, positions, **settings, state=state, machine=machine)
    assert not (out.tokens == START).any()
    assert_like_reference(logits, seeds, positions, masked=[START], got=out, **settings)
    assert (out.full_logprobs < -gap / 2).all()


def test_a_row_whose_only_token_is_masked_is_flagged(kernels):
    machine = machine_of()
    state = ops.new_state(torch.tensor([2]), machine, phase=torch.tensor([Phase.SOLUTION], dtype=INT32))
    logits = torch.full((1, VOCAB), -torch.inf)
    logits[0, START] = 0.0
    ids, broken = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=INT32)
    ops.sample(logits, ids, ids, state=state, machine=machine, broken=broken)
    assert broken.item() == 1


def test_an_eos_that_the_budget_replaced_reports_no_logprob(kernels):
    machine = machine_of()
    state = ops.new_state(torch.tensor([0]), machine)
    logits = torch.full((1, VOCAB), -torch.inf)
    logits[0, EOS] = 0.0
    ids = torch.zeros(1, dtype=torch.int64)
    out = ops.sample(logits - 1, ids, ids, state=state, machine=machine)
    assert (out.tokens.item(), out.source.item()) == (9, Source.FORCED)
    assert (out.logprobs.item(), out.full_logprobs.item()) == (0, 0)


def call_arguments(machine, state, rows: int):
    logits, seeds, positions = batch(rows, VOCAB)
    options = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01}
    per_row = {
        "temperatures": torch.rand(rows, dtype=torch.float64),
        "top_ks": torch.arange(rows),
        "top_ps": None,
        "min_ps": torch.rand(rows, dtype=torch.float64),
    }
    plain = (logits, seeds, positions)
    return plain, (*plain, state, machine.tables, machine.token_flags), {**options, **per_row}


def test_opcheck():
    machine = machine_of()
    state = ops.new_state(*rows_of(16)[:1], machine, phase=rows_of(16)[1])
    plain, stateful, options = call_arguments(machine, state, 16)
    active, broken = torch.zeros(2, 1, dtype=INT32)
    torch.library.opcheck(torch.ops.elastic.sample.default, plain, options)
    torch.library.opcheck(torch.ops.elastic.sample.default, plain, {**options, "broken": broken})
    torch.library.opcheck(torch.ops.elastic.sample_.default, stateful, options)
    flagged = {**options, "active": active.clone(), "broken": broken.clone()}
    torch.library.opcheck(torch.ops.elastic.sample_.default, stateful, flagged)


@pytest.mark.parametrize("temperature", [0.8, torch.tensor(0.8)], ids=["number", "0-dim"])
def test_it_compiles_into_one_graph_and_updates_the_state(temperature):
    machine = machine_of()
    budgets, phases = rows_of(16)

    def step(logits, seeds, positions, state, tables, flags):
        own = replace(machine, tables=tables, token_flags=flags)
        out = ops.sample(logits, seeds, positions, temperature, top_p=0.9, state=state, machine=own)
        return out.tokens + 0, out.logprobs * 1, out.source

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    states = [ops.new_state(budgets, machine, phase=phases) for _ in range(2)]
    for position in range(6):
        logits, seeds, _ = batch(16, VOCAB, seed=position)
        positions = torch.full((16,), position)
        a, b = (
            f(logits, seeds, positions, state, machine.tables, machine.token_flags)
            for f, state in zip((step, compiled), states, strict=True)
        )
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert torch.equal(*states)
