"""Several seeds of a demo, and the choice of its settings: summaries of rows made up by hand, small runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elastic.commands.demo import choose, seeds
from elastic.commands.demo.config import DemoConfig
from elastic.evaluate import Row
from tests.commands.test_demo import CONFIG
from tests.evaluate.rows import made_row


def row(
    method: str,
    thinking: int | None,
    accuracy: float,
    *,
    cut: float,
    accuracy_cut: float | None,
    width: float = 0.05,
) -> Row:
    return made_row(
        method,
        accuracy,
        width=width,
        thinking=thinking,
        solution=None if thinking is None else 24,
        accuracy_cut=accuracy_cut,
        thinking_tokens=8.0 if thinking else 60.0,
        solution_tokens=20.0,
        cut=cut,
    )


def demo(e1: float, *, cut: float = 0.5, accuracy_cut: float | None = 0.4, width: float = 0.05) -> list[Row]:
    return [
        *(row(name, 8, 0.1, cut=1.0, accuracy_cut=0.1) for name in ("vanilla", "separate", "capped")),
        row("e1", 8, e1, cut=cut, accuracy_cut=accuracy_cut, width=width),
        *(row(name, None, 0.9, cut=0.0, accuracy_cut=None) for name in ("separate", "capped", "e1")),
    ]


def test_the_summary_has_the_mean_and_both_ends_over_the_seeds() -> None:
    text = seeds.summary([demo(0.3), demo(0.6), demo(0.36)])
    assert "| 8 | 10.0 (10.0 - 10.0) | 10.0 (10.0 - 10.0) | 42.0 (30.0 - 60.0) |" in text
    assert "| none | 90.0 (90.0 - 90.0) | 90.0 (90.0 - 90.0) | 90.0 (90.0 - 90.0) |" in text
    assert "| 8 | 8 + 20 | 8 + 20 | 8 + 20 |" in text


def test_the_summary_says_in_how_many_seeds_e1_is_better_or_worse() -> None:
    # intervals of +- 0.05 around 10 % of the others
    text = seeds.summary([demo(0.3), demo(0.02), demo(0.12), demo(0.4)])
    assert "| 8 | +11.0 (-8.0 - +30.0), better in 2 | +11.0 (-8.0 - +30.0), better in 2 |" in text
    assert "| none | +0.0 (+0.0 - +0.0), open | +0.0 (+0.0 - +0.0), open |" in text
    text = seeds.summary([demo(0.3), demo(0.0, width=0.04)])
    assert "better in 1, worse in 1" in text


def test_accuracy_on_cut_thoughts_is_over_all_cut_answers_of_all_seeds() -> None:
    # 50 cut answers with 20 right, 10 with 9: 29 of 60
    text = seeds.summary([demo(0.3, cut=0.5, accuracy_cut=0.4), demo(0.3, cut=0.1, accuracy_cut=0.9)])
    assert "| 8 | 10 (of 200) | 10 (of 200) | 48 (of 60) |" in text
    assert "| none | - | - | - |" in text


def test_demos_with_different_budgets_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="the same budgets"):
        seeds.summary([demo(0.3), demo(0.3)[:4]])
    with pytest.raises(ValueError, match="the same budgets"):
        seeds.summary([])


def test_no_seed_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        seeds.run_seeds(0, tmp_path)


SMALL = replace(CONFIG, thinking_budgets=(10,), steps=1)


def test_seeds_are_whole_demos_with_test_problems_of_their_own(tmp_path: Path) -> None:
    text = seeds.run_seeds(2, tmp_path, build=lambda seed: replace(SMALL, seed=seed), processes=1)
    assert (tmp_path / "seeds.md").read_text() == text
    kept = json.loads((tmp_path / "seeds.json").read_text())
    assert [item["seed"] for item in kept] == [0, 1]
    assert len({item["settings"]["test_seed"] for item in kept}) == 2
    for seed in (0, 1):
        assert (tmp_path / f"seed-{seed}" / "demo.json").is_file()


def test_the_choice_sees_no_test_problem_and_no_reported_seed() -> None:
    for config in choose.CANDIDATES.values():
        assert config.split == "validation"
        assert config.seed not in range(seeds.SEEDS)
    assert DemoConfig().split == "test"


def test_the_demo_runs_with_settings_that_were_candidates() -> None:
    chosen = replace(DemoConfig(), seed=choose.SEED, split="validation")
    assert chosen in choose.CANDIDATES.values()


def test_the_choice_is_the_best_mean_of_e1_and_shows_the_control() -> None:
    found = {
        "a": {"capped": [row("capped", 8, 0.9, cut=0, accuracy_cut=None)], "e1": demo(0.5)[3::3]},
        "b": {"capped": [row("capped", 8, 0.2, cut=0, accuracy_cut=None)], "e1": demo(0.6)[3::3]},
    }
    text = choose.summary(found)
    assert "| a | capped | 90.0 | 90.0 |" in text
    assert "| b | e1 | 60.0 | 90.0 | 75.0 |" in text
    assert text.endswith("Chosen: b\n")


def test_candidates_are_trained_and_evaluated(tmp_path: Path) -> None:
    candidates = {str(steps): replace(SMALL, split="validation", steps=steps) for steps in (1, 2)}
    text = choose.choose(candidates, tmp_path, processes=1)
    assert (tmp_path / "choice.md").read_text() == text
    assert text.count("| e1 |") == text.count("| capped |") == 2
