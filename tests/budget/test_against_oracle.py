"""The machine, its Python reference and `replay` against the slow model that reads whole histories."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic import ops, reference
from elastic.budget import Phase
from tests.budget import oracle
from tests.budget.helpers import CharacterTokenizer, compiled, run
from tests.budget.strategies import cases, cases_and_streams, streams

pytestmark = pytest.mark.usefixtures("kernels")

MANY = settings(max_examples=200)


def end_from_outside(case, state, emitted, impl=ops):
    if case.ended_at == emitted:
        impl.end_thinking_(state, torch.tensor([0]))


@MANY
@given(both=cases_and_streams())
def test_every_token_source_and_phase_equals_the_slow_model(both):
    case, stream = both
    model, history = case.oracle(), []
    state = case.first_state()
    for token in stream:
        end_from_outside(case, state, len(history))
        forced = model.forced_next(history)
        assert int(ops.forced_next(state, case.machine)) == forced
        assert int(ops.is_done(state)) == (model.finish(history) != oracle.RUNNING)
        expected = model.emit(history, token)
        tokens = torch.tensor([token])
        active = torch.tensor([-1], dtype=torch.int32)
        source = ops.budget_step_(tokens, state, case.machine, active=active)
        assert (int(tokens), int(source), int(ops.last_phase(state))) == expected[:3]
        if expected.source == oracle.PAD:
            break
        history.append(expected)
        finish = model.finish(history)
        view = model.view(history)
        assert int(ops.finish_reason(state)) == finish
        assert int(active) == (finish == oracle.RUNNING)
        if not model.due(history).startswith("closing"):  # begun marker tokens are given back at once by then
            assert int(ops.thinking_used(state)) == view.thinking
        assert int(ops.solution_used(state)) == view.solution


@MANY
@given(both=cases_and_streams())
def test_budgets_are_never_exceeded_and_the_bound_on_tokens_holds(both):
    case, stream = both
    row = case.run(stream * 3)
    budget = case.budget
    waits = 3 if budget.whole_characters else 0
    if budget.thinking is not None:
        assert row.thinking <= budget.max_thinking
    if budget.solution is not None:
        openers = [len(end.way.ids) for end in case.spec.ends if end.opens]
        assert row.solution <= max([budget.solution, *openers]) + waits
    if budget.total is not None:
        assert row.thinking + row.solution <= budget.total + waits
    most = budget.max_tokens(case.markers, starts_in_thinking=case.start != Phase.OPENING)
    if most is not None:
        assert len(row.tokens) <= most


@MANY
@given(both=cases_and_streams())
def test_logits_are_forced_and_masked_where_the_slow_model_says(both):
    case, stream = both
    model, history = case.oracle(), []
    state = case.first_state()
    for token in stream:
        end_from_outside(case, state, len(history))
        logits = torch.linspace(-1, 1, 100)[None].clone()
        expected = logits.clone()
        forced = model.forced_next(history)
        if forced >= 0:
            expected[:] = -torch.inf
            expected[0, forced] = 0
        else:
            expected[0, list(model.masked(history))] = -torch.inf
        ops.force_logits_(logits, state, case.machine)
        assert torch.equal(logits, expected)
        entry = model.emit(history, token)
        ops.budget_step_(torch.tensor([token]), state, case.machine)
        if entry.source == oracle.PAD:
            break
        history.append(entry)


@MANY
@given(both=cases_and_streams(), data=st.data())
def test_a_row_rebuilt_from_any_prefix_of_its_history_goes_on_the_same(both, data):
    case, stream = both
    row = case.run(stream)
    cut = data.draw(st.integers(0, len(row.tokens)))
    tokens = torch.tensor([row.tokens[:cut]], dtype=torch.int64).reshape(1, cut)
    source = torch.tensor([row.source[:cut]], dtype=torch.uint8).reshape(1, cut)
    ended = -1 if case.ended_at is None or case.ended_at > cut else case.ended_at
    first, lengths, ends = case.first_state(), torch.tensor([cut]), torch.tensor([ended])
    phase, read, state, mismatch = ops.replay(tokens, lengths, first, case.machine, source=source, ended=ends)
    assert mismatch.tolist() == [-1]
    assert read.tolist() == [row.source[:cut]]
    assert phase.tolist() == [row.phase[:cut]]
    assert torch.equal(state, row.states[cut])


@pytest.mark.cpu_kernels  # on CUDA's: tests/stress
@MANY
@given(both=cases_and_streams())
def test_reference_equals_op(both):
    case, stream = both
    state = case.first_state()
    twin = case.first_state(reference)
    assert torch.equal(state, twin)
    for emitted, token in enumerate(stream):
        end_from_outside(case, state, emitted)
        end_from_outside(case, twin, emitted, reference)
        assert torch.equal(state, twin)
        tokens, others = torch.tensor([token]), torch.tensor([token])
        active, count = torch.tensor([-1], dtype=torch.int32), torch.tensor([-1], dtype=torch.int32)
        logits = torch.zeros(1, 100)
        mirror = logits.clone()
        ops.force_logits_(logits, state, case.machine)
        reference.force_logits_(mirror, twin, case.machine)
        assert torch.equal(logits, mirror)
        source = ops.budget_step_(tokens, state, case.machine, active=active)
        assert torch.equal(source, reference.budget_step_(others, twin, case.machine, active=count))
        assert torch.equal(tokens, others)
        assert torch.equal(active, count)
        assert torch.equal(state, twin)


@pytest.mark.cpu_kernels  # on CUDA's: tests/stress
@MANY
@given(both=cases_and_streams(), hinted=st.booleans(), data=st.data())
def test_reference_replay_equals_op_also_on_histories_that_contradict_the_budget(both, hinted, data):
    case, stream = both
    row = case.run(stream)
    count = len(row.tokens)
    tokens = torch.tensor([row.tokens], dtype=torch.int64)
    source = torch.tensor([row.source], dtype=torch.uint8) if hinted else None
    if count:
        wrong = data.draw(st.integers(0, count - 1))
        tokens[0, wrong] = data.draw(st.integers(0, 15))
    lengths, ends = torch.tensor([count]), torch.tensor([data.draw(st.integers(-1, count))])
    state = case.first_state()
    got = ops.replay(tokens, lengths, state, case.machine, source=source, ended=ends)
    expected = reference.replay(tokens, lengths, state, case.machine, source=source, ended=ends)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@settings(max_examples=60)
@given(cases=st.lists(cases(), min_size=2, max_size=4), data=st.data())
def test_r15_rows_do_not_notice_each_other_nor_their_place_in_the_batch(cases, data):
    markers = cases[0].markers
    legal = []
    for case in cases:
        try:
            compiled([case.budget], markers, CharacterTokenizer(set()))
        except ValueError:  # made for other markers
            continue
        legal.append(case.budget)
    if not legal:
        return
    machine, index = compiled(legal, markers, CharacterTokenizer(set()))
    rows = [data.draw(streams(markers)) for _ in legal]
    alone = [run(machine, s, state=ops.new_state(index[i : i + 1], machine)) for i, s in enumerate(rows)]
    state = ops.new_state(index, machine)
    place = list(range(len(rows)))  # row -> slot
    seen: list[list[int]] = [[] for _ in rows]
    for step in range(max(map(len, rows))):
        order = data.draw(st.permutations(range(len(rows)))) if step % 3 == 0 else list(range(len(rows)))
        state = state[torch.tensor(order)].contiguous()
        place = [order.index(p) for p in place]
        tokens = torch.zeros(len(rows), dtype=torch.int64)
        for row, slot in enumerate(place):
            tokens[slot] = rows[row][step] if step < len(rows[row]) else 8
        live = [
            not bool(ops.is_done(state)[slot]) and step < len(rows[row]) for row, slot in enumerate(place)
        ]
        ops.budget_step_(tokens, state, machine)
        for row, slot in enumerate(place):
            if live[row]:
                seen[row].append(int(tokens[slot]))
    assert seen == [r.tokens for r in alone]
