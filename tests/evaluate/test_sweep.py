"""Rows of a scripted engine, every number worked out by hand."""

import pytest

from elastic.budget import Budget
from elastic.data import NAMED_SETS, Problem
from elastic.evaluate import sweep
from elastic.evaluate.statistics import bootstrap_mean
from elastic.sampling import Sampling

SAMPLING = Sampling(temperature=1.0, seed=3)
# The scripted engine thinks one token a word of the prompt: 2, 4 and 6.
PROBLEMS = [Problem("a b", "yes"), Problem("a b c d", "yes"), Problem("a b c d e f", "yes")]
API_KEYS = {
    *("method", "thinking", "solution", "problems", "accuracy", "low", "high", "accuracy_cut"),
    *("tokens", "thinking_tokens", "solution_tokens", "cut"),
}


def test_a_row_has_the_means_of_its_answers_and_a_bootstrap_interval(engine, graded) -> None:
    (row,) = sweep(engine, ["separate"], [(4, 8)], PROBLEMS, graded, sampling=SAMPLING)
    # hm hm </think> yes <eos> | 4 hm </think> yes <eos> | 4 hm (cut) </think> no <eos>
    assert (row.method, row.thinking, row.solution, row.total) == ("separate", 4, 8, None)
    assert row.problems == 3
    assert row.accuracy == pytest.approx(2 / 3)
    assert row.interval == bootstrap_mean([1, 1, 0]).interval
    assert row.tokens == pytest.approx((5 + 7 + 7) / 3)
    assert row.thinking_tokens == pytest.approx((2 + 4 + 4) / 3)
    assert row.solution_tokens == pytest.approx(2)
    assert row.cut == pytest.approx(1 / 3)


def test_rows_have_the_keys_of_the_public_interface(engine, graded) -> None:
    (row,) = sweep(engine, ["e1"], [(4, 8)], PROBLEMS, graded, sampling=SAMPLING)
    assert set(row.to_dict()) >= API_KEYS


def test_vanilla_is_one_cap_at_the_same_total_and_says_so(engine, graded) -> None:
    (row,) = sweep(engine, ["vanilla"], [(1, 3)], PROBLEMS, graded, sampling=SAMPLING)
    assert (row.thinking, row.solution, row.total) == (None, None, 4)
    assert row.allowance == 4
    assert engine.calls[0][1] == Budget.vanilla(4)


def test_a_thought_that_vanilla_stops_counts_as_cut(engine, graded) -> None:
    (row,) = sweep(engine, ["vanilla"], [(1, 3)], PROBLEMS, graded, sampling=SAMPLING)
    # Under c = 4 the thoughts of 4 and 6 tokens never end: nothing forced, nothing answered.
    assert row.cut == pytest.approx(2 / 3)
    assert row.accuracy == pytest.approx(1 / 3)
    assert row.tokens == pytest.approx((5 + 4 + 4) / 3)


def test_accuracy_on_cut_thoughts_counts_the_cut_ones_alone(engine, graded) -> None:
    """Of the thoughts of 2, 4 and 6 tokens two are cut at t = 2; their answer is `no`."""
    problems = [Problem("a b", "yes"), Problem("a b c d", "no"), Problem("a b c d e f", "yes")]
    (row,) = sweep(engine, ["e1"], [(2, 8)], problems, graded, sampling=SAMPLING)
    assert row.accuracy == pytest.approx(2 / 3)
    assert row.accuracy_cut == pytest.approx(1 / 2)


def test_without_a_cut_thought_there_is_no_accuracy_on_them(engine, graded) -> None:
    (row,) = sweep(engine, ["e1"], [(6, 8)], PROBLEMS, graded, sampling=SAMPLING)
    assert (row.cut, row.accuracy_cut) == (0.0, None)


def test_a_thought_that_one_cap_stopped_is_a_cut_one_too(engine, graded) -> None:
    (row,) = sweep(engine, ["vanilla"], [(1, 3)], PROBLEMS, graded, sampling=SAMPLING)
    assert row.accuracy_cut == 0.0


def test_without_limits_every_method_is_the_same_and_decoded_once(engine, graded) -> None:
    methods = ["vanilla", "separate", "e1"]
    rows = list(sweep(engine, methods, [(None, None)], PROBLEMS, graded, sampling=SAMPLING))
    assert [row.method for row in rows] == methods
    assert len({(row.accuracy, row.tokens) for row in rows}) == 1
    assert all(row.is_unlimited for row in rows)
    assert len(engine.calls) == 1


def test_every_row_draws_with_the_same_seeds(engine, graded) -> None:
    list(sweep(engine, ["vanilla", "separate"], [(1, 3), (4, 8)], PROBLEMS, graded, sampling=SAMPLING))
    assert len(engine.calls) == 4
    assert {call[2] for call in engine.calls} == {SAMPLING}


def test_without_a_seed_all_rows_share_one_that_was_drawn(engine, graded) -> None:
    for _ in range(2):
        list(sweep(engine, ["separate"], [(1, 3), (4, 8)], PROBLEMS, graded, sampling=Sampling(1.0)))
    seeds = [call[2].seed for call in engine.calls]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert None not in seeds


def test_rows_come_as_they_are_done(engine, graded) -> None:
    rows = sweep(engine, ["separate"], [(1, 3), (4, 8)], PROBLEMS, graded, sampling=SAMPLING)
    next(rows)
    assert len(engine.calls) == 1


def test_l1_adds_its_instruction_to_the_question_in_front_of_the_template(engine, graded) -> None:
    list(
        sweep(
            *(engine, ["l1_exact"], [(4, 8)], PROBLEMS[:1], graded),
            sampling=SAMPLING,
            template=lambda question: f"{question} <think>",
        )
    )
    assert engine.calls[0][:2] == (["a b Think for 12 tokens. <think>"], Budget.unlimited())


def test_a_suffix_stands_where_training_puts_it_in_front_of_the_length(engine, graded) -> None:
    list(
        sweep(
            *(engine, ["separate", "l1_max"], [(4, 8)], PROBLEMS[:1], graded),
            sampling=SAMPLING,
            template=lambda question: f"{question} <think>",
            suffix="so",
        )
    )
    prompts = [call[0] for call in engine.calls]
    assert prompts == [["a b\nso <think>"], ["a b\nso Think for maximum 12 tokens. <think>"]]


def test_a_suffix_without_a_template_is_refused(engine, graded) -> None:
    with pytest.raises(ValueError, match="sweep: suffix adds to the question, so it needs"):
        sweep(engine, ["separate"], [(4, 8)], PROBLEMS, graded, sampling=SAMPLING, suffix="so")


def test_l1_without_a_template_is_refused(engine, graded) -> None:
    with pytest.raises(ValueError, match="l1_max adds to the question"):
        sweep(engine, ["l1_max"], [(4, 8)], PROBLEMS, graded, sampling=SAMPLING)


def test_l1_asks_inside_a_complete_prompt_where_its_set_knows_how(engine, graded) -> None:
    problems = [Problem("a <think>", "1", "p")]
    sums = NAMED_SETS["tiny"]
    list(sweep(engine, ["separate", "l1_max"], [(4, 8)], problems, graded, sampling=SAMPLING, ask=sums.ask))
    assert [call[0] for call in engine.calls] == [["a <think>"], ["a ok : 1 2 <think>"]]


@pytest.mark.parametrize(
    ("methods", "limits", "problems", "message"),
    [
        (["e2"], [(4, 8)], PROBLEMS, "got 'e2'"),
        (["e1"], [(4, 8)], [], "problems must not be empty"),
        (["e1"], [(4, 8), (-1, 8)], PROBLEMS, "-1"),
        (["e1"], [(4, None)], PROBLEMS, "give thinking and solution, or neither"),
    ],
)
def test_mistakes_are_found_before_the_first_token(
    engine, graded, methods, limits, problems, message
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(engine, methods, limits, problems, graded, sampling=SAMPLING)
    assert not engine.calls


def test_a_reward_between_0_and_1_has_no_interval_and_is_refused(engine) -> None:
    rows = sweep(engine, ["e1"], [(4, 8)], PROBLEMS, lambda *_: 0.5, sampling=SAMPLING)
    with pytest.raises(ValueError, match="reward must be 0 or 1"):
        next(rows)
