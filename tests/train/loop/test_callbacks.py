"""Callbacks hear of steps, evaluations and checkpoints, and can end a run so that it can go on."""

import torch

from elastic.models.tiny import problems
from elastic.train.run.callbacks import Callback
from tests.train.tiny_run import build_config, lines, run

TEST = problems(2, split="test")
TABLES = {"eval": {"every": 2, "count": 2, "budgets": [[3, 4]]}}


class Heard(Callback):
    def __init__(self, stop=None):
        self.events, self.stop = [], stop

    def _hear(self, what, progress):
        self.events.append((what, progress.step))
        return self.events[-1] == self.stop

    def on_step(self, progress, metrics):
        assert metrics["step"] == progress.step
        return self._hear("step", progress)

    def on_evaluation(self, progress, metrics):
        assert 0 <= metrics["eval/t3_s4/accuracy"] <= 1
        return self._hear("evaluation", progress)

    def on_save(self, progress, path):
        assert (path / "state.json").is_file()
        return self._hear("save", progress)


def test_events_come_in_the_order_of_the_run(tmp_path):
    heard = Heard()
    config = build_config(tmp_path, train={"steps": 3, "save_every": 2}, **TABLES)
    run(config, eval_dataset=TEST, callbacks=[heard])
    assert heard.events == [
        *(("evaluation", 0), ("step", 1), ("evaluation", 2), ("step", 2), ("save", 2)),
        *(("evaluation", 3), ("step", 3), ("save", 3)),
    ]


def test_true_ends_the_run_with_a_checkpoint_from_which_it_goes_on_as_if_nothing_was(tmp_path):
    whole = run(build_config(tmp_path / "whole", train={"steps": 4}, **TABLES), eval_dataset=TEST)
    for number, stop in enumerate([("step", 2), ("evaluation", 2), ("save", 2)]):
        output = tmp_path / str(number)
        config = build_config(output, train={"steps": 4, "save_every": 2}, **TABLES)
        stopped = run(config, eval_dataset=TEST, callbacks=[Heard(stop)])
        assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000002"]
        assert (output / "final").is_dir()
        if number == 0:  # the same trainer goes on, too
            assert stopped.train().step == 4
        else:
            stopped = run(config, eval_dataset=TEST)
        for a, b in zip(whole.model.parameters(), stopped.model.parameters(), strict=True):
            assert torch.equal(a, b)
        assert [r["step"] for r in lines(output / "metrics.jsonl") if "loss" in r] == [1, 2, 3, 4]


def test_run_that_ended_with_its_first_evaluation_goes_on(tmp_path):
    config = build_config(tmp_path, train={"steps": 2, "save_every": 0}, **TABLES)
    run(config, eval_dataset=TEST, callbacks=[Heard(("evaluation", 0))])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000000"]
    run(config, eval_dataset=TEST)
    assert [r["step"] for r in lines(tmp_path / "metrics.jsonl")] == [0, 1, 2, 2]


def test_only_true_ends_a_run_and_a_function_hears_of_steps(tmp_path):
    seen = []
    run(
        build_config(tmp_path),
        callbacks=[lambda progress, metrics: seen.append(progress.step) or progress.step],
    )
    assert seen == [1, 2, 3]


def test_starting_model_is_not_evaluated_on_request(tmp_path):
    tables = {"eval": TABLES["eval"] | {"at_start": False}}
    heard = Heard()
    run(build_config(tmp_path, train={"steps": 2}, **tables), eval_dataset=TEST, callbacks=[heard])
    assert heard.events == [("step", 1), ("evaluation", 2), ("step", 2)]
