"""Failures seen in serving engines, each as the claim that it does not happen here."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, Source, ops, replay
from tests.budget.helpers import EOS, PAD, machine_for, run
from tests.budget.tokenizers import bpe, chat

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
AAB = Markers((A, B, B), (A, A, B))
X, Y, Z = 6, 7, 8
S, F = Source.SAMPLED, Source.FORCED


def row(budget, stream, markers=ONE, start=Phase.THINKING):
    return run(machine_for(budget, markers), stream, start)


def test_no_message_is_injected_after_a_natural_end():
    for ended_at in range(6):
        out = row(Budget(6, 30, closing=(Y, END, Z)), [X] * ended_at + [END] + [X] * 40)
        assert F not in out.source
        assert Y not in out.tokens


def test_the_first_token_at_the_boundary_is_not_doubled():
    for begun in range(3):
        stream = [X, X, X, *[A, A][:begun]]
        out = row(Budget(3 + begun, 1), stream + [X] * 9, AAB)
        assert out.tokens == [X, X, X, A, A, B, X]


def test_the_tail_of_a_closing_that_starts_with_the_marker_is_not_lost():
    assert row(Budget(2, 1, closing=(END, Y, Z)), [X] * 9).tokens == [X, X, END, Y, Z, X]
    inside = row(Budget(3, 1, closing=(A, A, B, Y, Z)), [X, A, A] + [X] * 9, AAB)
    assert inside.tokens == [X, A, A, B, Y, Z, X]


def test_a_closing_with_a_start_marker_cannot_arm_thinking_again():
    with pytest.raises(ValueError, match="start marker"):
        machine_for(Budget(3, 3, closing=(END, START)), ONE)
    spread = Markers((A, B), (END,))
    with pytest.raises(ValueError, match="start marker"):
        machine_for(Budget(3, 3, closing=(END, X, A, B)), spread)


def test_a_nested_start_marker_does_not_reset_the_count():
    out = row(Budget(4, 1), [X, START, X, START, X, X, X, X])
    assert out.thinking == 4


def test_a_reopened_block_gets_no_fresh_budget():
    out = row(Budget(3, 5), [X, END, START, X, X, END, START, X, X])
    assert (out.thinking, out.solution) == (1, 5)
    assert len(out.tokens) == 7


def test_resuming_in_mid_message_does_not_restart_the_message():
    machine = machine_for(Budget(1, 1, closing=(Y, Y, Y, END)), ONE)
    tokens = torch.tensor([[X, Y, Y]])
    *_, state, mismatch = ops.replay(tokens, torch.tensor([3]), ops.new_state(1, machine), machine)
    assert mismatch.item() == -1
    assert run(machine, [X] * 9, state=state).tokens == [Y, END, X]


def test_a_budget_of_zero_closes_at_once():
    for grace in (0, 3):
        options = {"grace": grace, "boundary": (Z,)} if grace else {}
        out = row(Budget(0, 2, **options), [X] * 9)
        assert out.tokens == [END, X, X]
        assert out.thinking == 0


def test_think_tags_in_user_text_do_not_open_thinking():
    tokenizer = bpe(["hello world"], special=["<think>", "</think>", "<|user|>", "<|assistant|>"])
    markers = Markers.from_tokenizer(tokenizer)
    for typed in ("<think>", "say <think> please", "<think>\n", "</think>", "<think></think>"):
        closed = tokenizer.encode(chat(typed, ""))
        assert markers.initial_phase(closed) == Phase.OPENING
        assert markers.initial_phase(tokenizer.encode(chat(typed, "<think>\n"))) == Phase.THINKING


def test_eos_while_thinking_does_not_give_an_empty_answer():
    out = row(Budget(9, 3), [X, EOS, X, X, EOS])
    assert out.tokens == [X, END, X, X, EOS]
    assert (out.solution, out.finish) == (3, FinishReason.STOP)


def test_eos_as_the_first_answer_token_ends_the_row_with_stop():
    out = row(Budget(9, 3), [X, END, EOS, X])
    assert out.tokens == [X, END, EOS]
    assert (out.solution, out.finish) == (1, FinishReason.STOP)
    forced = row(Budget(1, 3), [X, X, EOS])
    assert (forced.tokens, forced.finish) == ([X, END, EOS], FinishReason.STOP)


def test_a_marker_that_tokenises_into_pieces_is_recognised():
    tokenizer = bpe(["a </b> answer.</think>\n\n <think>\n"] * 3)
    markers = Markers.from_tokenizer(tokenizer)
    assert len(markers.end) > 1
    text = "so it is.</think>\n\nyes"
    out = run(machine_for(Budget(99, 99), markers, tokenizer, ()), tokenizer.encode(text))
    assert F not in out.source
    assert Phase.SOLUTION in out.phase
    assert tokenizer.decode(
        [t for t, p in zip(out.tokens, out.phase, strict=True) if p == Phase.SOLUTION]
    ).strip() == ("yes")


def test_a_marker_overlapping_itself_is_found_wherever_it_ends():
    for stream in ([A, A, A, B], [A, A, A, A, B], [A, B, A, A, B], [A, A, X, A, A, B]):
        out = row(Budget(20, 1), [*stream, X, X], AAB)
        assert out.tokens == [*stream, X]
        assert out.thinking == len(stream) - 3


def test_a_slot_used_again_after_a_finished_row_starts_afresh():
    machine = machine_for(Budget(2, 1), ONE)
    state = ops.new_state(2, machine)
    for _ in range(6):
        tokens = torch.tensor([X, X])
        ops.budget_step_(tokens, state, machine)
    assert ops.is_done(state).all()
    state[1] = ops.new_state(1, machine)[0]
    fresh = run(machine, [X] * 9, state=state[1:].clone())
    assert fresh.tokens == [X, X, END, X]
    tokens = torch.tensor([X, X])
    assert ops.budget_step_(tokens, state, machine).tolist() == [Source.PAD, Source.SAMPLED]
    assert tokens.tolist() == [PAD, X]


def test_max_tokens_never_cuts_the_forced_message():
    budget = Budget(7, 3, closing=(Y, Y, Y, END, Z))
    most = budget.max_tokens(ONE)
    out = row(budget, [X] * 100)
    assert len(out.tokens) == most
    assert out.tokens[7:12] == [Y, Y, Y, END, Z]
    with pytest.raises(ValueError, match="do not fit"):
        budget.check_context(20 + most - 1, 20, ONE)
    budget.check_context(20 + most, 20, ONE)


def test_a_wrong_marker_is_an_error_and_not_a_budget_ignored():
    tokenizer = bpe(["hello world"], special=["<think>", "</think>"])
    with pytest.raises(ValueError, match="<thought>"):
        Markers.from_tokenizer(bpe(["abc"], alphabet=False), "<thought>", "</thought>")
    with pytest.raises(ValueError, match="twice"):
        Markers.from_tokenizer(tokenizer, "<think>", "<think>")
    # Ids that no closing of this budget holds: refused when compiled, not ignored while decoding.
    with pytest.raises(ValueError, match="found 0"):
        machine_for(Budget(3, 3, closing=(X, 77)), ONE)


def test_a_history_that_ignored_the_budget_is_an_error_naming_row_and_position():
    with pytest.raises(ValueError, match=r"row 1, position 3"):
        replay([[X, END, X], [X, X, X, X, X]], Budget(3, 3), ONE, eos_ids=[EOS])
