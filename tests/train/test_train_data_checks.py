"""What a run's user is told of its data: once each, with counts and an example."""

import warnings
from dataclasses import replace

import pytest

from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rollout import OutOfContext
from elastic.train import Trainer
from elastic.train.collect.data_checks import _say_overlap
from tests.train.tiny_run import build_config, build_model, run

TRAINED, EVALUATED = problems(6), problems(6, split="test")


def said(tmp_path, dataset=TRAINED, eval_dataset=(), tokenizer=None, **tables) -> list[str]:
    """Warnings of setting a run up."""
    if eval_dataset:
        tables["eval"] = {"every": 1, "count": 6} | tables.get("eval", {})
    config = build_config(tmp_path / "run", **tables)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(
            *(config, build_model(), tokenizer or build_tokenizer(), dataset, lambda *_: 1.0),
            eval_dataset=eval_dataset,
        )
    return [str(warning.message) for warning in caught]


def opened(text: str, *, end: str = "<think>") -> list[Problem]:
    return [Problem(f"<bos> {n} + {text} = ? {end}", "1", f"p{n}") for n in range(6)]


def test_sound_data_is_passed_over_in_silence(tmp_path):
    assert said(tmp_path, eval_dataset=EVALUATED) == []


def test_evaluated_problems_that_are_trained_on_are_counted(tmp_path):
    shared = [replace(TRAINED[k], id=f"other{k}", prompt=f" {TRAINED[k].prompt}\n") for k in (4, 1)]
    (message,) = said(tmp_path, eval_dataset=[*EVALUATED[:3], *shared])
    assert message.startswith("eval: 2 of 5 problems (first: 'other4') are trained on too")


def test_the_same_data_for_both_is_all_of_it(tmp_path):
    (message,) = said(tmp_path, eval_dataset=TRAINED)
    assert message.startswith(f"eval: 6 of 6 problems (first: '{TRAINED[0].id}') are trained on too")


def test_data_that_no_evaluation_reads_is_not_compared(tmp_path):
    config = build_config(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(config, build_model(), build_tokenizer(), TRAINED, lambda *_: 1.0, eval_dataset=TRAINED)


def test_ids_that_name_several_problems_are_counted(tmp_path):
    names = ["a", "b", "a", "c", "a", "b"]
    dataset = [replace(problem, id=name) for problem, name in zip(TRAINED, names, strict=True)]
    assert said(tmp_path, dataset) == [
        "data: 2 ids name more than one problem (first: 'a', 3 problems): samples and messages cannot tell "
        "those apart"
    ]
    nameless = [replace(problem, id="") for problem in TRAINED]
    assert said(tmp_path, nameless) == []


def test_prompts_that_never_open_thinking_are_counted(tmp_path):
    mixed = [*opened("1", end=".")[:2], *opened("2")[2:]]
    (message,) = said(tmp_path, mixed)
    assert message.startswith("data: 2 of 6 problems (first: 'p0') do not open thinking: unless the model")


def test_prompts_that_may_end_inside_a_thought_are_counted_apart(tmp_path):
    mixed = [*opened("1", end=".")[:1], *opened("1", end="<think> 2")[1:4], *opened("2")[4:]]
    inside, never = said(tmp_path, mixed)
    assert inside.startswith("data: 3 of 6 problems (first: 'p1') hold a start marker with text behind it")
    assert never.startswith("data: 1 of 6 problems (first: 'p0') do not open thinking")


def test_a_run_is_told_of_its_prompts_before_it_starts_and_not_at_every_step(tmp_path):
    config = build_config(tmp_path / "run", eval={"every": 1, "count": 4})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(config, dataset=opened("1", end="<think> 2"), eval_dataset=opened("3", end="."))
    messages = [str(w.message) for w in caught if "thinking" in str(w.message)]
    assert [message.partition(":")[0] for message in messages] == ["data", "eval"]


def test_prompts_that_close_thinking_themselves_are_counted(tmp_path):
    (message,) = said(tmp_path, eval_dataset=opened("1", end="<think> </think>"))
    assert message.startswith("eval: 6 of 6 problems (first: 'p0') close thinking themselves")


@pytest.mark.parametrize("end", [".", "<think> </think>"])
def test_without_a_thinking_budget_a_prompt_need_not_open_thinking(tmp_path, end):
    budget = {"thinking": "unlimited", "solution": "unlimited", "total": 9}
    assert said(tmp_path, opened("1", end=end), budget=budget) == []
    # ... in the training; an evaluation under budgets of its own is told.
    (message,) = said(
        tmp_path, TRAINED, opened("1", end=end), budget=budget, eval={"budgets": [[-1, -1], [3, 4]]}
    )
    assert message.startswith("eval: 6 of 6")


def test_complete_prompts_under_the_chat_template_are_pointed_out(tmp_path):
    complete = opened("1")
    (message,) = said(tmp_path, complete, data={"chat": "on"})
    assert message.startswith("data: 6 of 6 problems (first: 'p0') open thinking twice")
    assert 'set data.chat = "off"' in message
    assert said(tmp_path, complete, data={"chat": "off"}) == []


def test_a_user_who_writes_the_start_marker_opens_nothing_twice(tmp_path):
    dataset = [Problem(f"<bos> <think> {n} + 1 = ? <think>", "1", str(n)) for n in range(6)]
    assert said(tmp_path, dataset) == []


@pytest.mark.parametrize(
    "tables",
    [
        {"eval": {"budgets": [[6, 5], [3, 4]]}},
        {"budget": {"draw": "random", "thinking_low": 2}},
        {"budget": {"draw": "curriculum", "thinking_start": 2, "curriculum_steps": 2}},
    ],
)
def test_lengths_beyond_a_smaller_budget_are_pointed_out(tmp_path, tables):
    reward = {"length": "l1-exact", "target_min": 2, "target_max": 9}
    tokenizer = build_tokenizer()
    evaluated = [Problem(f"{n} - 1 = ?", "1", f"e{n}") for n in range(6)]
    dataset = [Problem(f"{n} + 1 = ?", "1", f"p{n}") for n in range(6)]
    options = {"reward": reward, "data": {"chat": "on"}, "tokenizer": tokenizer}
    assert said(tmp_path, dataset, evaluated, **options) == []
    (message,) = said(tmp_path, dataset, evaluated, **options, **tables)
    assert message.startswith("reward.target_max: prompts ask for up to 9 tokens, but ")
    assert "budgets of 7 tokens" in message


def test_an_evaluation_that_does_not_fit_the_context_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(OutOfContext, match=r"problem '.*': thinking: .* context of 1024, got 2000"):
        said(tmp_path, eval_dataset=EVALUATED, eval={"budgets": [[3, 4], [2000, 4]]})
    assert not (tmp_path / "run").exists()


def test_a_prompt_that_opens_thinking_itself_needs_room_for_the_start_marker(tmp_path):
    """Up to 32 tokens of white space and the marker come on top of the budgets (R9)."""
    room = 1024 - 11 - 1  # t + s, and the forced end marker
    words = ["1"] * (room - 1)
    said(tmp_path, [Problem(" ".join([*words, "<think>"]), "1", str(n)) for n in range(4)])
    with pytest.raises(OutOfContext, match="do not fit"):
        said(tmp_path, [Problem(" ".join([*words, "."]), "1", str(n)) for n in range(4)])


def test_questions_that_are_nearly_the_same_count_where_they_are_read_and_not_where_they_are_drawn():
    text = "<bos> a farmer has 9 sheep and all but 3 of them run away in the night {} how many stay ? <think>"
    trained, evaluated = ([Problem(text.format(word), "3", word)] for word in ("then", "so"))
    with pytest.warns(UserWarning, match=r"eval: 1 of 1 problems \(first: 'so'\) are trained on too"):
        _say_overlap(trained, evaluated, generated=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _say_overlap(trained, evaluated, generated=True)
