"""The buffers of compiled budgets: each row is what `compile_budgets` makes of the budget alone."""

import pytest
import torch

from elastic import load_model, ops
from elastic.budget import Budget, Markers, Phase
from elastic.budget.machine import compile_budgets
from elastic.integrations.vllm.table import FIRST_WIDTH, MOST_IDLE, BudgetTable, BudgetTables

BUDGETS = [
    Budget(8, 4),
    Budget(8, None, closing="wait </think> so"),
    Budget(6, 3, grace=2),
    Budget(6, 3, grace=2, boundary=("+",)),
    Budget(None, None, min_thinking=5, max_extensions=2, extension="="),
    Budget(9, 9, notices=((3, "="),), on_reopen="forbid", on_reclose="forbid"),
    Budget(5, 5, whole_characters=True),
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("tiny")[1]


@pytest.fixture(scope="module")
def markers(tokenizer):
    return Markers.from_tokenizer(tokenizer)


def table_of(markers, tokenizer, rows=4):
    eos = tokenizer.eos_token_id
    return BudgetTable(markers, tokenizer, (eos,), eos, rows)


def emitted(tokens, rows, machine):
    """What rows in THINKING emit when each samples these tokens, [B, T]."""
    state = ops.new_state(rows, machine, phase=[int(Phase.THINKING)] * len(rows))
    steps = []
    for token in tokens.T:
        step = token.clone()
        ops.budget_step_(step, state, machine)
        steps.append(step)
    return torch.stack(steps, 1)


def test_budgets_that_come_one_by_one_emit_what_they_emit_compiled_together(tokenizer, markers):
    table = table_of(markers, tokenizer, len(BUDGETS))
    rows = [table.acquire(budget) for budget in reversed(BUDGETS)][::-1]
    eos = tokenizer.eos_token_id
    machine, index = compile_budgets(BUDGETS, markers, tokenizer, (eos,), eos)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        tokens = torch.randint(len(tokenizer), (len(BUDGETS), 40), generator=generator)
        expected = emitted(tokens, index, machine)
        assert torch.equal(emitted(tokens, torch.tensor(rows), table.machine), expected)


def test_equal_budgets_share_a_row_until_the_last_has_gone(tokenizer, markers):
    table = table_of(markers, tokenizer)
    first, second, other = (
        table.acquire(Budget(8, 4)),
        table.acquire(Budget(8, 4)),
        table.acquire(Budget(8, 5)),
    )
    assert first == second != other
    table.release(first)
    assert table.users == {first: 1, other: 1}
    table.release(first)
    table.release(other)
    assert table.users == {}


def test_rows_are_used_again_and_buffers_stay_where_they_are(tokenizer, markers):
    table = table_of(markers, tokenizer, 2)
    where = table.machine.tables.data_ptr(), table.machine.token_flags.data_ptr()
    for limit in range(1, 500):
        row = table.acquire(Budget(limit, 4, grace=limit % 3))
        assert table.machine.tables[row, 0] == limit
        table.release(row)
    assert where == (table.machine.tables.data_ptr(), table.machine.token_flags.data_ptr())


def test_more_budgets_than_rows_are_refused(tokenizer, markers):
    table = table_of(markers, tokenizer, 1)
    table.acquire(Budget(8, 4))
    with pytest.raises(RuntimeError, match="all 1 table rows"):
        table.acquire(Budget(9, 4))


def test_a_long_closing_widens_the_tables_and_leaves_other_rows_alone(tokenizer, markers):
    table = table_of(markers, tokenizer)
    short = table.acquire(Budget(8, 4))
    before = table.machine.tables[short].clone()
    digit = tokenizer.encode("7", add_special_tokens=False)[0]
    long = table.acquire(Budget(8, 4, closing=(digit,) * 600 + markers.end))
    assert table.machine.tables.shape[1] >= 600 > FIRST_WIDTH
    assert torch.equal(table.machine.tables[short, :FIRST_WIDTH], before)
    tokens = torch.full((1, 620), digit)
    assert emitted(tokens, torch.tensor([long]), table.machine)[0, 608:].tolist()[: len(markers.end)] == list(
        markers.end
    )
    with pytest.raises(ValueError, match=r"^closing, extension, notices: .* 8192 words"):
        table.acquire(Budget(8, 4, closing=(digit,) * 9000 + markers.end))


def test_texts_that_the_markers_forbid_are_refused_and_use_no_row(tokenizer, markers):
    table = table_of(markers, tokenizer, 1)
    with pytest.raises(ValueError, match="closing: expected exactly one end marker"):
        table.acquire(Budget(8, 4, closing="1 + 1"))
    with pytest.raises(ValueError, match="boundary: expected token ids below"):
        table.acquire(Budget(8, 4, grace=2, boundary=(10**6,)))
    assert table.users == {}
    assert table.acquire(Budget(8, 4)) == 0


def test_more_boundary_sets_than_bits_use_a_second_table(tokenizer, markers):
    eos = tokenizer.eos_token_id
    tables = BudgetTables(tokenizer, (eos,), eos, 8)
    leases = [tables.acquire(Budget(8, 4, grace=2, boundary=(i,)), markers) for i in range(20, 26)]
    assert len(tables.open) == 2
    assert [table is leases[0][0] for table, _ in leases] == [True] * 5 + [False]
    table, row = leases[0]
    table.release(row)
    again, row = tables.acquire(Budget(8, 4, grace=2, boundary=(30,)), markers)
    assert again is table  # the bit of the one that went
    marked = table.machine.token_flags & table.machine.tables[row, 6] != 0
    assert marked.nonzero()[:, 0].tolist() == [30]


def test_other_markers_have_another_table_and_idle_ones_are_dropped(tokenizer, markers):
    eos = tokenizer.eos_token_id
    tables = BudgetTables(tokenizer, (eos,), eos, 8)
    kept, _ = tables.acquire(Budget(8, 4), markers)
    for i in range(20, 40):
        other = Markers(markers.start, markers.end, tokenizer=tokenizer, ends=((i,),))
        table, row = tables.acquire(Budget(8, 4), other)
        assert table is not kept
        table.release(row)
    assert kept in tables.open
    assert len(tables.open) <= 2 + MOST_IDLE
