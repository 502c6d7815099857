"""Budgets that shrink, or grow, while training goes on."""

import pytest

from elastic.models.tiny import problems
from elastic.rollout import OutOfContext
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.config.budget import BudgetConfig
from tests.train.tiny_run import build_config, lines, run


def drawn(config, steps):
    draw = BudgetDraw(config, seed=0)
    return [(b.thinking, b.solution) for step in steps for b in draw.draw(step, range(1))]


def test_an_exponential_curriculum_shrinks_by_one_factor_a_step():
    keys = {"thinking": 32, "solution": 64, "draw": "curriculum", "curriculum": "exponential"}
    config = BudgetConfig(**keys, thinking_start=512, solution_start=4, curriculum_steps=4)
    assert drawn(config, [0, 1, 2, 3, 4, 9]) == [
        (512, 4),
        (256, 8),
        (128, 16),
        (64, 32),
        (32, 64),
        (32, 64),
    ]
    config = BudgetConfig(**keys, thinking_start=512, curriculum_steps=4)
    assert drawn(config, [0, 4]) == [(512, 64), (32, 64)]


def test_the_bounds_of_a_curriculum_cover_its_start_and_its_end_in_both_phases():
    keys = {"draw": "curriculum", "curriculum_steps": 4}
    draw = BudgetDraw(BudgetConfig(8, 16, **keys, thinking_start=40, solution_start=4), seed=0)
    assert (draw.smallest.thinking, draw.smallest.solution) == (8, 4)
    assert (draw.largest.thinking, draw.largest.solution) == (40, 16)
    assert (draw.final.thinking, draw.final.solution) == (8, 16)
    endless = BudgetDraw(BudgetConfig(8, "unlimited", **keys, thinking_start=40), seed=0)
    assert (endless.largest.thinking, endless.largest.solution) == (40, None)


def test_no_factor_leads_to_or_from_zero():
    keys = {"draw": "curriculum", "curriculum": "exponential", "curriculum_steps": 4}
    for thinking, start in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match=rf"budget.curriculum: .* got {thinking} and {start}"):
            BudgetConfig(thinking, 16, **keys, thinking_start=start)
    assert BudgetConfig(0, 16, **keys | {"curriculum": "linear"}, thinking_start=8).thinking == 0


def test_a_shrinking_run_begins_above_its_budget_and_is_evaluated_at_it(tmp_path):
    shrinking = {"draw": "curriculum", "thinking": 2, "thinking_start": 12, "curriculum_steps": 2}
    config = build_config(tmp_path, budget=shrinking, eval={"every": 3, "count": 2})
    run(config, eval_dataset=problems(2, split="test"))
    records = lines(tmp_path / "metrics.jsonl")
    steps = [record for record in records if "reward" in record]
    assert steps[0]["thinking_tokens"] > 2 >= steps[2]["thinking_tokens"]
    assert [key for key in records[0] if key.endswith("accuracy")] == ["eval/t2_s5/accuracy"]


def test_the_start_of_a_shrinking_run_has_to_fit_the_context(tmp_path):
    shrinking = {"draw": "curriculum", "thinking_start": 2000, "curriculum_steps": 2}
    with pytest.raises(OutOfContext, match="1024, got 2000"):
        run(build_config(tmp_path, budget=shrinking))
