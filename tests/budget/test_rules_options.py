"""Rules R10 to R17 of the budget machine, by hand."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from elastic import Budget, FinishReason, Markers, Phase, Source, ops
from elastic.budget.machine import compile_budgets
from tests.budget.helpers import EOS, PAD, ListTokenizer, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
AAB = Markers((A, B, B), (A, A, B))
X, Y, Z, DOT = 6, 7, 8, 9
S, F, P = Source.SAMPLED, Source.FORCED, Source.PAD


def row(budget, stream, markers=ONE, start=Phase.THINKING):
    return run(machine_for(budget, markers), stream, start)


# ---- R10 ----


def test_r10_a_row_rebuilt_in_the_middle_of_a_forced_sequence_goes_on_the_same():
    budget = Budget(2, 3, closing=(Y, Y, END, Z, Z))
    machine = machine_for(budget, ONE)
    whole = run(machine, [X] * 30)
    assert len(whole.tokens) == 10
    for cut in range(len(whole.tokens)):
        tokens = torch.tensor([whole.tokens[:cut]], dtype=torch.int64).reshape(1, cut)
        *_, state, mismatch = ops.replay(tokens, torch.tensor([cut]), ops.new_state(1, machine), machine)
        assert mismatch.item() == -1
        rest = run(machine, [X] * 30, state=state)
        assert whole.tokens[:cut] + rest.tokens == whole.tokens
        assert whole.source[:cut] + rest.source == whole.source


def test_r10_a_history_that_goes_on_from_a_saved_state_equals_one_read_at_once():
    machine = machine_for(Budget(3, 3), AAB)
    tokens = torch.tensor([run(machine, [X] * 20).tokens])
    at_once = ops.replay(tokens, torch.tensor([8]), ops.new_state(1, machine), machine)[2]
    first = ops.replay(tokens[:, :4].contiguous(), torch.tensor([4]), ops.new_state(1, machine), machine)[2]
    then = ops.replay(tokens[:, 4:8].contiguous(), torch.tensor([4]), first, machine)[2]
    assert torch.equal(at_once, then)


# ---- R11 ----


def test_r11_an_early_end_marker_is_replaced_by_the_extension_at_most_so_often():
    budget = Budget(9, 9, min_thinking=5, extension=(Y, Z), max_extensions=2)
    out = row(budget, [X, END, X, END, X, X, END, X])
    assert out.tokens == [X, Y, Z, Y, Z, X, END, X]
    assert out.source == [S, F, F, F, F, S, S, S]
    assert out.thinking == 2


def test_r11_an_early_eos_is_replaced_too_whatever_on_eos_says():
    for on_eos in ("close", "stop"):
        out = row(
            Budget(9, 1, min_thinking=3, extension=(Y,), max_extensions=1, on_eos=on_eos),
            [X, EOS, X, X, END, X],
        )
        assert out.tokens == [X, Y, X, X, END, X]
        assert out.phase[1] == Phase.NOTICE


def test_r11_behind_the_minimum_or_the_last_extension_the_end_marker_stands():
    options = {"min_thinking": 2, "extension": (Y,), "max_extensions": 1}
    assert row(Budget(9, 1, **options), [X, X, END, X]).tokens == [X, X, END, X]
    assert row(Budget(9, 1, **options), [END, END, X]).tokens == [Y, END, X]


def test_r11_the_beginning_of_a_replaced_marker_stays_as_thinking_text():
    out = row(
        Budget(9, 1, min_thinking=4, extension=(Y,), max_extensions=1), [X, A, A, B, X, A, A, B, X], AAB
    )
    assert out.tokens == [X, A, A, Y, X, A, A, B, X]
    assert out.thinking == 4


@pytest.mark.parametrize("text", [(END,), (X, START), (EOS,), (X, A, A, B), (B,), (X, A)])
def test_r11_an_extension_that_holds_completes_or_begins_a_marker_is_refused(text):
    markers = AAB if set(text) & {A, B} else ONE
    with pytest.raises(ValueError, match="extension") as error:
        machine_for(Budget(9, 9, min_thinking=3, extension=text, max_extensions=1), markers)
    assert str(text) in str(error.value)


@pytest.mark.parametrize("options", [{"min_thinking": 3}, {"max_extensions": 1}])
def test_r11_a_minimum_without_extensions_would_do_nothing_and_is_refused(options):
    with pytest.raises(ValueError, match=r"min_thinking and max_extensions"):
        Budget(9, 9, **options)


# ---- R12 ----


def test_r12_notices_are_forced_at_used_token_counts_while_thinking_goes_on():
    out = row(Budget(4, 1, notices=((2, (Y, Z)), (0, (Y,)))), [X] * 20)
    assert out.tokens == [Y, X, X, Y, Z, X, X, END, X]
    assert out.phase[3:5] == [Phase.NOTICE] * 2
    assert out.thinking == 4


def test_r12_a_notice_waits_while_an_end_marker_is_in_progress():
    out = row(Budget(8, 2, notices=((2, (Y,)),)), [X, A, A, B, X, X], AAB)
    assert out.tokens == [X, A, A, B, X, X]  # the marker completed: no notice any more
    out = row(Budget(8, 2, notices=((2, (Y,)),)), [X, A, X, X], AAB)
    assert out.tokens[:4] == [X, A, X, Y]


def test_r12_a_notice_that_waited_until_the_budget_was_spent_is_dropped():
    budget = Budget(3, 1, notices=((2, (Y,)),), grace=3, boundary=(DOT,))
    out = row(budget, [X, A, A, *[X] * 9], AAB)
    assert out.tokens == [X, A, A, X, X, X, A, A, B, X]


def test_r12_notices_due_at_once_follow_each_other():
    out = row(Budget(4, 1, notices=((1, (Y,)), (1, (Z,)))), [X] * 9)
    assert out.tokens[:4] == [X, Y, Z, X]


@pytest.mark.parametrize("text", [(END,), (START,), (X, END, X)])
def test_r12_a_notice_with_a_marker_is_refused(text):
    with pytest.raises(ValueError, match="notices"):
        machine_for(Budget(9, 9, notices=((1, text),)), ONE)


def test_r12_a_notice_that_would_never_come_is_refused():
    with pytest.raises(ValueError, match=r"notices.*thinking=4"):
        Budget(4, 4, notices=((4, (Y,)),))


# ---- R13 ----


def test_r13_grace_lasts_until_a_boundary_token():
    out = row(Budget(2, 1, grace=3, boundary=(DOT,)), [X, X, X, DOT, X, X])
    assert out.tokens == [X, X, X, DOT, END, X]
    assert out.thinking == 4


def test_r13_grace_is_limited_and_a_boundary_at_t_cuts_at_once():
    assert row(Budget(2, 1, grace=3, boundary=(DOT,)), [X] * 9).tokens == [X] * 5 + [END, X]
    assert row(Budget(2, 1, grace=3, boundary=(DOT,)), [X, DOT, X, X]).tokens == [X, DOT, END, X]
    assert row(Budget(2, 1, grace=3, boundary=(DOT,)), [DOT, X, X, END, X]).tokens == [DOT, X, X, END, X]


def test_r13_boundaries_given_as_text_are_tokens_that_end_in_it():
    tokenizer = ListTokenizer(["x", "y", "<s>", "</s>", ".\n", "a. b", "done.", "?", "\n  "])
    machine = machine_for(Budget(2, 9, grace=3, boundary=(".",)), ONE, tokenizer, eos=())
    bit = machine.tables[0, 6].item()
    assert [i for i, f in enumerate(machine.token_flags.tolist()) if f & bit] == [4, 6]
    machine = machine_for(Budget(2, 9, grace=3), ONE, tokenizer, eos=())
    assert [i for i, f in enumerate(machine.token_flags.tolist()) if f & bit] == [4, 6, 7, 8]


def test_r13_a_boundary_that_no_token_ends_in_is_refused():
    with pytest.raises(ValueError, match="boundary"):
        machine_for(Budget(2, 9, grace=3, boundary=("%",)), ONE, ListTokenizer(["x"] * 9))


# ---- R14 ----


def test_r14_a_total_caps_both_phases_but_never_the_closing():
    out = row(Budget(3, None, 5, closing=(Y, Y, END)), [X] * 20)
    assert out.tokens == [X] * 3 + [Y, Y, END] + [X] * 2
    assert out.finish == FinishReason.TOTAL_BUDGET


def test_r14_thinking_left_over_goes_to_the_solution_under_a_total():
    out = row(Budget(3, None, 5), [X, END, *[X] * 20])
    assert (out.thinking, out.solution) == (1, 4)


@pytest.mark.parametrize(
    ("thinking", "total", "options"), [(4, 4, {}), (4, 5, {"grace": 1, "boundary": (DOT,)}), (1024, 500, {})]
)
def test_r14_a_total_that_leaves_no_solution_token_is_refused(thinking, total, options):
    with pytest.raises(ValueError, match=rf"total: expected at least .* got {total}"):
        Budget(thinking, 4, total, **options)


def test_r14_without_a_thinking_budget_a_total_cuts_hard():
    out = row(Budget.vanilla(4), [X] * 9)
    assert out.tokens == [X] * 4
    assert (out.finish, out.cut) == (FinishReason.TOTAL_BUDGET, False)
    assert row(Budget.vanilla(4), [X, X, END, X, X, X]).tokens == [X, X, END, X, X]
    assert row(Budget.vanilla(9), [X, EOS]).tokens == [X, EOS]
    assert Budget(None, total=7) == Budget(None, None, 7)


def test_r14_a_solution_budget_that_a_hard_cut_may_starve_is_refused():
    with pytest.raises(ValueError, match="total=9"):
        Budget(None, 4, 9)


# ---- R15 ----


def test_r15_budgets_differ_inside_a_batch_and_rows_move_freely():
    budgets = [Budget(1, 1), Budget(3, 2), Budget(None, 1), Budget(1, 1)]
    machine, index = compile_budgets(budgets, ONE, None, [EOS], PAD)
    assert index.tolist() == [0, 1, 2, 0]
    assert len(machine.budgets) == 3
    state = ops.new_state(index, machine)
    emitted: dict[int, list[int]] = {0: [], 1: [], 2: [], 3: []}
    place = [0, 1, 2, 3]
    for step in range(8):
        order = [1, 2, 3, 0] if step % 2 else [3, 0, 2, 1]  # swap the rows between slots
        state, place = state[torch.tensor(order)], [place[i] for i in order]
        tokens = torch.full((4,), X)
        source = ops.budget_step_(tokens, state, machine)
        for slot, r in enumerate(place):
            if source[slot] != P:
                emitted[r].append(tokens[slot].item())
    assert emitted == {0: [X, END, X], 1: [X, X, X, END, X, X], 2: [X] * 8, 3: [X, END, X]}


def test_r15_dropping_finished_rows_changes_nothing_for_the_others():
    machine, index = compile_budgets([Budget(1, 1), Budget(5, 2)], ONE, None, [EOS], PAD)
    state = ops.new_state(index, machine)
    for _ in range(4):
        ops.budget_step_(torch.tensor([X, X]), state, machine)
    kept = state[1:].contiguous()
    assert run(machine, [X] * 9, state=kept).tokens == [X, END, X, X]


# ---- R16 ----


def test_r16_a_step_reads_nothing_on_the_host():
    machine = machine_for(Budget(2, 2, on_reopen="forbid"), ONE)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = type(machine)(
            mode.from_tensor(machine.tables), mode.from_tensor(machine.token_flags), *_rest(machine)
        )
        state = torch.empty(3, 8, dtype=torch.int32)
        tokens, logits = torch.empty(3, dtype=torch.int64), torch.empty(3, 100)
        active = torch.empty(1, dtype=torch.int32)
        # A fake tensor has no data: .item(), .any() in an if, nonzero() would raise here.
        ops.force_logits_(logits, state, fake)
        source = ops.budget_step_(tokens, state, fake, active=active)
        for read in (ops.state_phase, ops.last_phase, ops.finish_reason, ops.is_done, ops.thinking_cut):
            assert read(state).shape == (3,)
        assert ops.forced_next(state, fake).shape == (3,)
        assert (source.shape, source.dtype) == ((3,), torch.uint8)


def _rest(machine):
    return machine.budgets, machine.markers, machine.pad_id, machine.smallest_vocab


def test_r16_completion_is_a_counter_and_overshooting_rows_emit_padding():
    machine, index = compile_budgets([Budget(1, 1), Budget(1, 3)], ONE, None, [EOS], PAD)
    state, active = ops.new_state(index, machine), torch.tensor([-1], dtype=torch.int32)
    counts, sources = [], []
    for _ in range(6):
        tokens = torch.tensor([X, X])
        sources.append(ops.budget_step_(tokens, state, machine, active=active).tolist())
        counts.append(active.item())
    assert counts == [2, 2, 1, 1, 0, 0]
    assert sources[3:] == [[P, S], [P, S], [P, P]]
    assert tokens.tolist() == [PAD, PAD]


# ---- R17 ----


@pytest.mark.parametrize("value", [-1, 1.5, "7", True, 2**31, float("inf")])
@pytest.mark.parametrize("name", ["thinking", "solution", "total", "min_thinking", "grace", "max_extensions"])
def test_r17_an_illegal_budget_names_argument_value_and_limit(name, value):
    most = 65_535 if name == "max_extensions" else 2**30
    with pytest.raises(ValueError, match=rf"^{name}: expected an integer from \d to {most}") as error:
        Budget(**{"thinking": 5, "solution": 5, name: value})
    assert str(error.value).endswith(f"got {value!r}")


def test_r17_a_solution_budget_of_zero_is_illegal_and_a_thinking_budget_of_zero_is_not():
    with pytest.raises(ValueError, match="solution: expected an integer from 1"):
        Budget(5, 0)
    assert Budget(0, 1).thinking == 0


def test_r17_integers_of_other_libraries_are_integers():
    assert Budget(np.int64(5), np.int32(6)) == Budget(5, 6)
    assert type(Budget(np.int64(5)).thinking) is int


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(5000, 10), "thinking: expected at most the model's context of 4096, got 5000"),
        (Budget(10, 5000), "solution: expected at most the model's context of 4096, got 5000"),
        (Budget.vanilla(5000), "total: expected at most the model's context of 4096, got 5000"),
        (Budget(2048, 2000), r"budget: a prompt of 100 tokens and at most 4049 .* context of 4096"),
    ],
)
def test_r17_a_budget_beyond_the_models_context_names_argument_value_and_limit(budget, message):
    with pytest.raises(ValueError, match=message):
        budget.check_context(4096, 100, ONE)


def test_r17_a_budget_that_just_fits_the_context_is_legal():
    Budget(2048, 1947).check_context(4096, 100, ONE)
    Budget.unlimited().check_context(4096, 4095, ONE)
    with pytest.raises(ValueError, match="prompt: expected fewer tokens than the model's context of 4096"):
        Budget.unlimited().check_context(4096, 4096, ONE)


@pytest.mark.parametrize("options", [{"on_eos": "end"}, {"on_reopen": "mask"}])
def test_r17_an_unknown_choice_lists_the_known_ones(options):
    with pytest.raises(ValueError, match="expected one of"):
        Budget(5, 5, **options)
