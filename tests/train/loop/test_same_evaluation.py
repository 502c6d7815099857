"""An evaluation during training and `elastic eval` on its checkpoint give the same numbers."""

import json
import math

import pytest

from elastic.commands.cli import main
from elastic.models.tiny import problems
from tests.train.tiny_run import build_config, lines, run


def partly_right(response, answer):
    """0 or 1, so that `elastic eval` takes it too; None now and then."""
    if "7" in response:
        return None
    return float(response.count("9") + response.count("1") >= 1)


def evaluated(folder):
    found = {}
    for row in json.loads((folder / "eval.json").read_text())["rows"]:
        name = "_".join(
            f"{letter}{'inf' if n is None else n}"
            for letter, n in (("t", row["thinking"]), ("s", row["solution"]))
        )
        found[name] = row
    return found


def test_training_and_command_agree_on_problems_seeds_budgets_and_grades(tmp_path, monkeypatch):
    monkeypatch.setattr("elastic.models.tiny.reward", partly_right)
    count, samples = 9, 3
    evaluation = {"every": 1, "count": count, "samples": samples, "seed": 4, "at_start": False}
    evaluation |= {"temperature": 0.9, "top_p": 0.8, "budgets": [[3, 4], [6, 2], [-1, -1]]}
    config = build_config(
        tmp_path / "run",
        train={"steps": 1, "save_every": 1},
        eval=evaluation,
        rollout={"max_new_tokens": 12, "max_rows": 4},
    )
    test = problems(count, split="test", seed=4)
    run(config, reward=partly_right, eval_dataset=test)
    (record,) = [r for r in lines(tmp_path / "run" / "metrics.jsonl") if "reward" not in r]
    flags = (
        "--data tiny --count 9 --data-seed 4 --methods separate --budgets 3:4,6:2,none --samples 3 --seed 4"
    )
    flags += " --temperature 0.9 --top-p 0.8 --max-new-tokens 12 --max-rows 7 --device cpu"
    model = tmp_path / "run" / "checkpoints" / "step-00000001" / "model"
    assert main(["eval", str(model), *flags.split(), "--out", str(tmp_path / "eval")]) == 0
    rows = evaluated(tmp_path / "eval")
    assert rows.keys() == {"t3_s4", "t6_s2", "tinf_sinf"}
    for name, row in rows.items():
        ours = {key.split("/")[2]: value for key, value in record.items() if key.startswith(f"eval/{name}/")}
        assert 0 < row["accuracy"] < 1
        assert ours["accuracy"] == pytest.approx(row["accuracy"], abs=1e-6)
        assert ours["thinking_tokens"] == pytest.approx(row["thinking_tokens"], abs=1e-6)
        assert ours["solution_tokens"] == pytest.approx(row["solution_tokens"], abs=1e-6)
        assert ours["cut_share"] == pytest.approx(row["cut"], abs=1e-6)
        assert ours["graded"] == count * samples - row["ungraded"]
    assert sum(row["ungraded"] for row in rows.values()) > 0
    assert len({row["accuracy"] for row in rows.values()}) == 3


def test_standard_error_is_over_problems_not_over_answers(tmp_path):
    values = iter([1.0, 1.0, 0.0, 0.0, 1.0, None])  # problems with the means 1, 0 and 1
    evaluation = {"every": 1, "count": 3, "samples": 2, "budgets": [[3, 4]]}
    config = build_config(tmp_path, train={"steps": 1}, eval=evaluation)
    run(config, reward=lambda *_: next(values, 0.0), eval_dataset=problems(3, split="test"))
    record = lines(tmp_path / "metrics.jsonl")[0]
    assert record["eval/t3_s4/accuracy"] == pytest.approx(2 / 3)
    # Deviation of 1, 0, 1 is sqrt(1/3); over the root of 3 problems.
    assert record["eval/t3_s4/accuracy_stderr"] == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3), rel=1e-5)
    assert record["eval/t3_s4/graded"] == 5
