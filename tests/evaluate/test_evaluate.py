"""Samples and rows of a scripted engine, every number worked out by hand."""

from collections.abc import Sequence

import pytest

from elastic.budget import Budget
from elastic.data import NAMED_SETS, Problem
from elastic.evaluate import EvalSet, PolicyOptions, Row, evaluate, rows_of
from elastic.evaluate.methods import METHODS
from elastic.evaluate.run.plan import tasks_of
from elastic.evaluate.statistics import bootstrap_mean
from elastic.sampling import Sampling, row_seeds

SAMPLING = Sampling(temperature=1.0, seed=3)
# The scripted engine thinks one token a word of the prompt: 2, 4 and 6.
PROBLEMS = [Problem("a b", "yes"), Problem("a b c d", "yes"), Problem("a b c d e f", "yes")]
API_KEYS = {
    *("method", "thinking", "solution", "problems", "accuracy", "low", "high", "accuracy_cut"),
    *("tokens", "thinking_tokens", "solution_tokens", "cut", "answered", "pass_at_k", "samples"),
}


def rows(engine, reward, methods: Sequence[str], limits, problems=PROBLEMS, **options) -> list[Row]:
    return rows_of(
        evaluate(engine, EvalSet("set", problems, reward), methods, limits, sampling=SAMPLING, **options)
    )


def templated(problems, reward, **options) -> EvalSet:
    def template(questions: Sequence[str]) -> list[str]:
        return [f"{question} <think>" for question in questions]

    return EvalSet("set", problems, reward, template, **options)


def test_a_row_has_the_means_of_its_answers_and_a_bootstrap_interval(engine, graded) -> None:
    (row,) = rows(engine, graded, ["separate"], [(4, 8)])
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
    (row,) = rows(engine, graded, ["e1"], [(4, 8)])
    assert set(row.to_dict()) >= API_KEYS


def test_vanilla_is_one_cap_at_the_same_total_and_says_so(engine, graded) -> None:
    (row,) = rows(engine, graded, ["vanilla"], [(1, 3)])
    assert (row.thinking, row.solution, row.total) == (None, None, 4)
    assert row.allowance == 4
    assert engine.calls[0][1] == Budget.vanilla(4)


def test_a_thought_that_vanilla_stops_counts_as_cut(engine, graded) -> None:
    (row,) = rows(engine, graded, ["vanilla"], [(1, 3)])
    # Under c = 4 the thoughts of 4 and 6 tokens never end: nothing forced, nothing answered.
    assert row.cut == pytest.approx(2 / 3)
    assert row.accuracy == pytest.approx(1 / 3)
    assert row.tokens == pytest.approx((5 + 4 + 4) / 3)


def test_accuracy_on_cut_thoughts_counts_the_cut_ones_alone(engine, graded) -> None:
    """Of the thoughts of 2, 4 and 6 tokens two are cut at t = 2; their answer is `no`."""
    problems = [Problem("a b", "yes"), Problem("a b c d", "no"), Problem("a b c d e f", "yes")]
    (row,) = rows(engine, graded, ["e1"], [(2, 8)], problems)
    assert row.accuracy == pytest.approx(2 / 3)
    assert row.accuracy_cut == pytest.approx(1 / 2)


def test_without_a_cut_thought_there_is_no_accuracy_on_them(engine, graded) -> None:
    (row,) = rows(engine, graded, ["e1"], [(6, 8)])
    assert (row.cut, row.accuracy_cut) == (0.0, None)


def test_a_thought_that_one_cap_stopped_is_a_cut_one_too(engine, graded) -> None:
    (row,) = rows(engine, graded, ["vanilla"], [(1, 3)])
    assert row.accuracy_cut == 0.0


def test_without_limits_every_method_is_the_same_and_decoded_once(engine, graded) -> None:
    methods = ["vanilla", "separate", "e1"]
    found = rows(engine, graded, methods, "none")
    assert [row.method for row in found] == methods
    assert len({(row.accuracy, row.tokens) for row in found}) == 1
    assert all(row.is_unlimited for row in found)
    assert len(engine.calls) == 1


def test_every_method_and_budget_draws_with_the_same_seeds(engine, graded) -> None:
    rows(engine, graded, ["vanilla", "separate"], "1:3,4:8", samples=2)
    assert len(engine.calls) == 4
    assert engine.seeds[0] == engine.seeds[1] == engine.seeds[2] == engine.seeds[3]
    assert len(set(engine.seeds[0])) == 6


def test_more_samples_and_other_chunks_leave_the_seeds_as_they_are(engine, graded) -> None:
    rows(engine, graded, ["separate"], "4:8")
    assert engine.seeds == [row_seeds(3, 3)]
    rows(engine, graded, ["separate"], "4:8", samples=2, chunk_rows=2)
    assert [seeds[0] for seeds in engine.seeds[1:]] == row_seeds(3, 3)


def test_without_a_seed_one_is_drawn_for_the_whole_run(engine, graded) -> None:
    problems = EvalSet("set", PROBLEMS, graded)
    for _ in range(2):
        evaluate(engine, problems, ["separate"], "1:3,4:8", sampling=Sampling(1.0))
    assert engine.seeds[0] == engine.seeds[1] != engine.seeds[2] == engine.seeds[3]


def test_samples_come_set_by_set_budget_by_budget_and_method_by_method(engine, graded) -> None:
    sets = [EvalSet("one", PROBLEMS[:1], graded), EvalSet("two", PROBLEMS[1:], graded)]
    found = evaluate(engine, sets, ["vanilla", "e1"], "4:8,none", samples=2, chunk_rows=2)
    assert [(s.data, s.method, s.budget) for s in found[::2]] == [
        *(("one", "vanilla", (None, None, 12)), ("one", "e1", (4, 8, None))),
        *(("one", "vanilla", (None, None, None)), ("one", "e1", (None, None, None))),
        *(("two", "vanilla", (None, None, 12)),) * 2,
        *(("two", "e1", (4, 8, None)),) * 2,
        *(("two", "vanilla", (None, None, None)), ("two", "e1", (None, None, None))) * 2,
    ]
    assert [(s.problem, s.sample) for s in found[8:12]] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]


def test_texts_are_kept_in_runs_of_one_kind_unless_they_are_not_wanted(engine, graded) -> None:
    problems = EvalSet("set", PROBLEMS[2:], graded)
    (sample,) = evaluate(engine, problems, ["e1"], "2:8")
    assert sample.segments == (("thinking", "hm hm"), ("forced", "</think>"), ("solution", "no <eos>"))
    (sample,) = evaluate(engine, problems, ["e1"], "2:8", texts=False)
    assert sample.segments == ()


def test_l1_adds_its_instruction_to_the_question_in_front_of_the_template(engine, graded) -> None:
    evaluate(engine, templated(PROBLEMS[:1], graded), ["l1_exact"], "4:8")
    assert engine.calls[0][:2] == (["a b Think for 12 tokens. <think>"], Budget.unlimited())


def test_a_suffix_stands_where_training_puts_it_in_front_of_the_length(engine, graded) -> None:
    evaluate(engine, templated(PROBLEMS[:1], graded, suffix="so"), ["separate", "l1_max"], "4:8")
    prompts = [call[0] for call in engine.calls]
    assert prompts == [["a b\nso <think>"], ["a b\nso Think for maximum 12 tokens. <think>"]]


def test_l1_asks_inside_a_complete_prompt_where_its_set_knows_how(engine, graded) -> None:
    problems = EvalSet("set", [Problem("a 3 b + 4 = ? <think>", "7")], graded, ask=NAMED_SETS["tiny"].ask)
    evaluate(engine, problems, ["separate", "l1_max"], "4:8")
    prompts = [call[0] for call in engine.calls]
    assert prompts == [["a 3 b + 4 = ? <think>"], ["a 3 b + 4 = ? ok : 1 2 <think>"]]


def test_a_set_says_what_s1_forces_in_its_own_words(graded) -> None:
    problems = EvalSet("set", PROBLEMS, graded, phrases={"s1": "{end} so", "Wait": "hm"})
    (task,) = tasks_of([problems], [METHODS["s1"]], [(4, 8)], PolicyOptions(max_extensions=1))
    (budget,) = task.budgets
    assert budget == Budget(4, 8, closing="{end} so", min_thinking=4, max_extensions=1, extension="hm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["e2"]}, "expected one of vanilla, .*, got 'e2'"),
        ({"methods": ["e1", "e1"]}, "methods: e1 is there twice"),
        ({"methods": []}, "methods: expected at least one, got none"),
        ({"budgets": []}, "budgets: expected at least one, got none"),
        ({"budgets": [(4, 8), (-1, 8)]}, "thinking: expected .* got -1"),
        ({"budgets": [(4, None)], "methods": ["vanilla"]}, "vanilla: give thinking and solution, or neither"),
        ({"budgets": "4"}, "budgets: expected THINKING:SOLUTION or none, got '4'"),
        ({"budgets": "4:8,4:8"}, "budgets: '4:8' is there twice"),
        ({"budgets": "4:x"}, "expected a number of tokens, '-' or 'none', got 'x'"),
        (
            {"budgets": "900:800"},
            "set, separate: prompt 0: budget: .* do not fit the model's context of 1000",
        ),
        ({"samples": 0}, "samples: expected 1 or more, got 0"),
        ({"chunk_rows": 0}, "chunk_rows: expected 1 or more, got 0"),
        ({"ks": (1, 2)}, "ks: expected 1 .. samples=1, got 2"),
        ({"max_new_tokens": 9}, "max_new_tokens: has no effect: the budgets end every completion"),
        ({"options": PolicyOptions(max_extensions=1)}, "max_extensions: has no effect on separate; .* by s1"),
        (
            {"options": PolicyOptions(grace=1), "methods": ["s1"]},
            "grace: has no effect on s1; it is read by separate",
        ),
        (
            {"options": PolicyOptions(min_thinking=1), "methods": ["s1"]},
            "min_thinking: has no effect without max_extensions",
        ),
        ({"methods": ["l1_max"]}, "l1_max: adds a request for a length to the question"),
        ({"sampling": Sampling(), "out": "x"}, "sampling: expected one with a seed"),
    ],
)
def test_mistakes_are_found_before_the_first_token(
    engine, graded, changes, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"methods": ["separate"], "budgets": [(4, 8)]} | changes
    with pytest.raises(ValueError, match=message):
        evaluate(engine, EvalSet("set", PROBLEMS, graded), **arguments)
    assert not engine.calls
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("problems", "options", "message"),
    [
        ([], {}, "data 'set': problems must not be empty"),
        ([Problem("a", "1", id="x"), Problem("b", "1", id="x")], {}, "several problems have the same id"),
        (PROBLEMS, {"suffix": "so"}, "suffix: needs questions and a chat template"),
    ],
)
def test_a_set_that_cannot_be_put_or_graded_is_refused(graded, problems, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        EvalSet("set", problems, graded, **options)


def test_a_reward_between_0_and_1_cannot_be_counted_and_is_refused(engine) -> None:
    with pytest.raises(
        ValueError, match=r"reward: expected 0 or 1, which can be counted, got 0\.5 for '0' of 'set'"
    ):
        rows(engine, lambda *_: 0.5, ["e1"], [(4, 8)])


def test_an_answer_that_the_reward_cannot_judge_stays_ungraded(engine) -> None:
    (sample, _, _) = evaluate(engine, EvalSet("set", PROBLEMS, lambda *_: None), ["e1"], "4:8")
    assert sample.correct is None
