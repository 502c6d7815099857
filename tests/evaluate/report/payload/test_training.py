"""Training curves of records made up by hand."""

from elastic.evaluate.report.payload import ReportRun, Training
from elastic.evaluate.report.payload.training import MOST_POINTS, training


def curves(*trainings: Training) -> list[dict]:
    return training([ReportRun("run", "training", trainings=trainings)])


def test_metrics_become_curves_in_one_order_with_a_line_per_training() -> None:
    records = [{"step": 1, "kl": 0.1, "reward": 0.5, "lr": 1e-6}, {"step": 2, "kl": 0.2, "reward": None}]
    found = curves(Training("a", records), Training("b", [{"step": 1, "reward": 0.25}]))
    assert [(curve["metric"], curve["run"]) for curve in found] == [
        *(("reward", "a"), ("reward", "b"), ("kl", "a"))
    ]
    assert found[0]["values"] == [0.5, None]
    assert found[2] | {"title": ""} == {
        "run": "a",
        "metric": "kl",
        "title": "",
        "unit": "nats",
        "hidden": False,
        "steps": [1, 2],
        "values": [0.1, 0.2],
    }


def test_evaluations_stand_at_their_steps_under_their_budget() -> None:
    records = [
        {"step": 0, "eval/t40_sinf/accuracy": 0.25, "eval/t40_sinf/cut_share": 1.0},
        {"step": 1, "reward": 0.5},
        {"step": 10, "eval/t40_sinf/accuracy": 0.75},
    ]
    (evaluated,) = [curve for curve in curves(Training("a", records)) if curve["metric"] != "reward"]
    assert evaluated["title"] == "accuracy under t40, s without limit"
    assert (evaluated["steps"], evaluated["values"]) == ([0, 10], [0.25, 0.75])


def test_a_metric_without_any_value_is_left_out() -> None:
    assert curves(Training("a", [{"step": 1, "entropy": None}])) == []


def test_long_curves_keep_both_ends_and_evenly_spaced_points() -> None:
    (curve,) = curves(Training("a", [{"step": step, "reward": step} for step in range(1, 5001)]))
    assert len(curve["steps"]) == MOST_POINTS
    assert (curve["steps"][0], curve["steps"][-1]) == (1, 5000)
    gaps = {after - before for before, after in zip(curve["steps"], curve["steps"][1:], strict=False)}
    assert gaps <= {16, 17}
