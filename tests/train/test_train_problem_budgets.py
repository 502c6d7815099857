"""``budget.draw = "problem"``: each problem's own budgets, checked before anything runs."""

import json
from dataclasses import replace

import pytest

from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.datasets import load_datasets
from elastic.train.config.budget import BudgetConfig
from elastic.train.planning.run_plan import plan_run
from tests.train.tiny_run import build_config, lines, run

OWN = {"thinking": 8, "solution": 6, "draw": "problem"}
BOTH = OWN | {"thinking_column": "think", "solution_column": "extra.solve"}


def problem(name, **columns):
    return Problem("", "", name, columns=columns)


def test_each_group_gets_the_budgets_of_its_problem():
    easy, hard = problem("easy", think=2, solve=3.0), problem("hard", think=8, solve=6)
    draw = BudgetDraw(BudgetConfig(**BOTH), 0, [easy, hard])
    found = [(b.thinking, b.solution) for b in draw.draw(4, range(3), [hard, easy, hard])]
    assert found == [(8, 6), (2, 3), (8, 6)]
    assert [(b.thinking, b.solution) for b in (draw.smallest, draw.largest, draw.final)] == [
        *((2, 3), (8, 6), (8, 6))
    ]


def test_a_budget_without_a_column_is_always_the_full_one():
    config = BudgetConfig(**OWN, thinking_column="think", closing="qwen3", grace=2)
    (budget,) = BudgetDraw(config, 0).draw(0, range(1), [problem("p", think=3)])
    assert budget == replace(config.budget(), thinking=3)
    endless = BudgetConfig(**OWN | {"solution": "unlimited"}, thinking_column="think")
    assert BudgetDraw(endless, 0).draw(0, range(1), [problem("p", think=3)])[0].solution is None


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"think": 9}, {}, r"budget.thinking_column: problem 'p' has 9, .* up to budget.thinking = 8"),
        ({"think": -1}, {}, r"budget.thinking_column: problem 'p' has -1, expected a whole number"),
        ({"think": 2.5}, {}, r"has 2.5, expected a whole number"),
        ({"think": float("nan")}, {}, r"has nan, expected a whole number"),
        ({"think": "4"}, {}, r"has '4', expected a whole number"),
        ({"think": True}, {}, r"has True, expected a whole number"),
        ({"think": None}, {}, r"has None, expected a whole number"),
        ({"solve": 3}, {}, r"budget.thinking_column: problem 'p' has no column 'think', it has solve"),
        ({"think": 2, "solve": 7}, {"solution_column": "solve"}, r"up to budget.solution = 6"),
        ({"think": 2, "solve": 0}, {"solution_column": "solve"}, r"problem 'p' has {.*}: solution: "),
        (
            {"think": 3},
            {"min_thinking": 5, "max_extensions": 1},
            r"problem 'p' has {'thinking': 3}: min_thinking: expected at most thinking=3",
        ),
        ({"think": 3}, {"notices": [[5, "so"]]}, r"problem 'p' has {'thinking': 3}: notices: expected fewer"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_its_problem(columns, options, said):
    config = BudgetConfig(**OWN | {"thinking_column": "think"} | options)
    with pytest.raises(ValueError, match=said):
        BudgetDraw(config, 0, [problem("fine", think=6, solve=1), problem("p", **columns)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "budget.thinking_column: budget.draw = 'problem' needs it, or budget.solution_column"),
        (
            {"thinking": "unlimited", "thinking_column": "t"},
            "budget.thinking_column: needs a finite budget.thinking",
        ),
        (
            {"solution": "unlimited", "solution_column": "s"},
            "budget.solution_column: needs a finite budget.solution",
        ),
        ({"thinking_column": "t", "cuts": [3]}, "budget.cuts: needs budget.draw = 'fixed', got 'problem'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        BudgetConfig(**OWN | options)


@pytest.fixture
def config(tmp_path):
    """Six questions; the n-th may think n + 1 tokens and answer in 6 - n."""
    rows = [
        {"question": f"{n} + 1 = ?", "answer": n + 1, "think": n + 1, "extra": {"solve": 6 - n}}
        for n in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_config(
        tmp_path / "run",
        data={"source": str(tmp_path / "rows.jsonl"), "count": 6, "chat": "on"},
        budget=BOTH,
        train={"steps": 3},
        logging={"samples_every": 1, "samples": 16},
    )


def test_a_run_keeps_the_budgets_that_its_data_has(tmp_path, config, tokenizer):
    tokenizer.chat_template = "<bos> {% for m in messages %}{{ m.content }} {% endfor %}<think>"
    dataset, _ = load_datasets(config)
    assert dataset[2].columns == {"think": 3, "solve": 4}
    run(config, dataset=dataset, tokenizer=tokenizer)
    samples, metrics = lines(tmp_path / "run/samples.jsonl"), lines(tmp_path / "run/metrics.jsonl")
    assert len(samples) == 48
    for sample in samples:
        n = int(sample["answer"]) - 1
        assert sample["thinking_tokens"] <= n + 1
        assert sample["solution_tokens"] <= 6 - n
    spent = {s["answer"] for s in samples if s["thinking_tokens"] == int(s["answer"])}
    assert len(spent) >= 4  # the others' rows happened to end before
    for record in metrics:
        groups = [int(s["answer"]) for s in samples if s["step"] == record["step"]][::4]
        assert record["thinking_budget"] == sum(groups) / 4
        assert record["solution_budget"] == sum(7 - n for n in groups) / 4


def test_a_plan_counts_the_mean_of_the_problems_budgets(config):
    plan = plan_run(config)
    assert not plan.problems
    fixed = plan_run(replace(config, budget=BudgetConfig(thinking=8, solution=6)))
    assert plan.work.step_tokens == pytest.approx(fixed.work.step_tokens * 7 / 14)
    assert plan.work.row_tokens == fixed.work.row_tokens


def test_problems_without_budgets_are_refused_before_a_step(tmp_path):
    config = build_config(tmp_path, budget=BOTH)
    with pytest.raises(ValueError, match=r"budget.thinking_column: problem '.*' has no column 'think', it"):
        run(config, dataset=problems(12))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_drawn_budgets_are_metrics_too(tmp_path):
    run(
        build_config(
            tmp_path,
            budget={"draw": "random", "thinking_low": 2, "solution": "unlimited"},
            rollout={"max_new_tokens": 12},
            train={"steps": 1},
        )
    )
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert 2 <= record["thinking_budget"] <= 6
    assert record["solution_budget"] is None
    run(build_config(tmp_path / "fixed", train={"steps": 1}))
    assert "thinking_budget" not in lines(tmp_path / "fixed/metrics.jsonl")[0]
