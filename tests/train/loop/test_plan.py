"""A plan counts what the loop does besides steps: evaluations, checkpoints, the best model."""

import json

from elastic.train.planning.run_plan import plan_run
from elastic.train.planning.text import text
from tests.train.tiny_run import build_config, run


def sizes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def config_of(output, **train):
    evaluation = {"every": 2, "count": 2, "budgets": [[3, 4]]}
    return build_config(output, train={"steps": 5, "save_every": 2} | train, eval=evaluation)


def test_evaluations_saves_and_sizes_are_those_of_the_run(tmp_path):
    from elastic.models import load_model
    from elastic.models.tiny import NAME, problems

    plan = plan_run(config_of(tmp_path, best="accuracy"))
    assert plan.problems == ()
    assert plan.work.evaluations == 4  # steps 0, 2, 4 and 5
    assert plan_run(build_config(tmp_path, eval={"every": 2, "at_start": False})).work.evaluations == 2
    assert (plan.disk.saves, plan.disk.kept, plan.disk.models) == (3, 3, 3)
    assert plan_run(config_of(tmp_path, save_every=0)).disk.kept == 0
    model, tokenizer = load_model(NAME, device="cpu")
    config = config_of(tmp_path, best="accuracy")
    run(config, model=model, tokenizer=tokenizer, eval_dataset=problems(2, split="test"))
    (best,) = (tmp_path / "best").iterdir()
    checkpoint = tmp_path / "checkpoints" / "step-00000005"
    assert 0.9 < sizes(best) / plan.disk.model < 1.1
    assert 0.9 < sizes(checkpoint) / plan.disk.checkpoint < 1.1
    shown = " ".join(text(plan).split())
    assert "disk 3 checkpoints of" in shown
    assert "best by accuracy" in shown
    assert json.loads(plan.to_json())["disk"]["most"] == plan.disk.most


def test_plan_names_a_best_metric_that_no_evaluation_has(tmp_path):
    (problem,) = plan_run(config_of(tmp_path, best="eval/t9_s9/accuracy")).problems
    assert problem.startswith("train.best: must be one of accuracy, eval/t3_s4/accuracy")
