"""The best model of a run by an evaluation is kept, whatever happens to its checkpoints."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from elastic.models.tiny import problems
from elastic.train import build_trainer
from elastic.train.run import best as best_module
from elastic.train.run.best import best_model
from tests.forked import start, status
from tests.train.tiny_run import build_config, lines, run

TEST = problems(4, split="test")
EVAL = {"every": 1, "count": 4, "budgets": [[3, 4]], "temperature": 1.0}


def config_of(output, metric="eval/t3_s4/accuracy", steps=5, **train):
    train = {"steps": steps, "save_every": 1, "keep_checkpoints": 1, "best": metric} | train
    return build_config(output, train=train, eval=EVAL)


def scripted(values):
    """A reward under which evaluation k has the accuracy `values[k]`; training rows get what is learned."""
    calls = {"n": -1}

    def reward(response, answer):
        calls["n"] += 1
        evaluation, place = divmod(calls["n"], 4 + 16)
        return values[evaluation] if place < 4 else float(response.count("9"))

    return reward


def named(output):
    found = json.loads((output / "best.json").read_text())
    return found["step"], found["value"]


def weights_of(directory):
    return load_file(directory / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("values", "train", "wanted"),
    [
        ([0.1, 0.2, 0.6, 0.3, 0.6, 0.5], {}, (2, 0.6)),  # of equal ones the earlier
        ([0.9, 0.2, 0.6, 0.3, 0.6, 0.5], {}, (0, 0.9)),  # the starting model counts
        ([0.5, 0.2, 0.6, 0.1, 0.6, 0.1], {"best_is": "least"}, (3, 0.1)),
        ([0.1, 0.2, 0.6, 0.3, 0.6, 0.5], {"metric": "accuracy"}, (2, 0.6)),
    ],
)
def test_best_evaluation_keeps_its_weights_beside_the_last_checkpoint(tmp_path, values, train, wanted):
    seen = {}

    def remember(progress, metrics):
        seen[progress.step] = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}

    from elastic.models.tiny.vocabulary import build_tokenizer
    from elastic.train import Trainer
    from elastic.train.run.callbacks import Callback
    from tests.train.tiny_run import build_model

    class Remember(Callback):
        def on_evaluation(self, progress, metrics):
            remember(progress, metrics)

    trainer = Trainer(
        config_of(tmp_path, **train),
        build_model(),
        build_tokenizer(),
        problems(12),
        scripted(values),
        eval_dataset=TEST,
        callbacks=[Remember()],
    )
    trainer.train()
    assert named(tmp_path) == (wanted[0], pytest.approx(wanted[1]))
    model = best_model(tmp_path)
    assert [path.name for path in (tmp_path / "best").iterdir()] == [model.name] == [f"step-{wanted[0]:08d}"]
    for name, tensor in weights_of(model).items():
        assert torch.equal(tensor, seen[wanted[0]][name])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_resumed_run_keeps_the_best_of_its_first_part(tmp_path):
    run(config_of(tmp_path, steps=3), reward=scripted([0.1, 0.7, 0.3, 0.2]), eval_dataset=TEST)
    before = weights_of(best_model(tmp_path))

    class Lower:
        calls = 0

        def __call__(self, response, answer):
            self.calls += 1
            return 0.6

    run(config_of(tmp_path), reward=Lower(), eval_dataset=TEST)
    assert named(tmp_path) == (1, pytest.approx(0.7))
    assert same(before, weights_of(best_model(tmp_path)))


@pytest.mark.parametrize("moment", ["write_atomic", "rmtree", "save_model"])
def test_kill_while_the_best_is_replaced_leaves_one_and_the_run_ends_as_if_there_was_none(tmp_path, moment):
    values = [0.1, 0.2, 0.3, 0.9, 0.4, 0.5]
    run(config_of(tmp_path / "whole"), reward=scripted(values), eval_dataset=TEST)
    output = tmp_path / "killed"

    def killed():
        original, calls = getattr(best_module, moment, None), [0]
        target = best_module if original else best_module.RunState
        original = original or target.save_model

        def die(*arguments):
            calls[0] += 1
            if calls[0] == 3:  # the second replacement
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(target, moment, die)
        run(config_of(output), reward=scripted(values), eval_dataset=TEST)

    assert status(start(killed)) == -signal.SIGKILL
    assert (best_model(output) / "model.safetensors").is_file()
    done = lines(output / "metrics.jsonl")[-1]["step"]
    checkpoint = max(int(path.name[-8:]) for path in (output / "checkpoints").iterdir())
    assert checkpoint <= done
    # The rewards go on where the checkpoint stands.
    rest = scripted(values)
    for _ in range(checkpoint * 20 + 4):
        rest("", "")
    run(config_of(output), reward=rest, eval_dataset=TEST)
    assert named(output) == named(tmp_path / "whole") == (3, pytest.approx(0.9))
    assert same(weights_of(best_model(output)), weights_of(best_model(tmp_path / "whole")))
    assert len(list((output / "best").iterdir())) == 1


def test_run_ends_after_so_many_evaluations_without_a_better_one_and_goes_on_with_more_patience(tmp_path):
    values = [0.1, 0.5, 0.5, 0.4, 0.3, 0.2]
    trainer = run(config_of(tmp_path, patience=2), reward=scripted(values), eval_dataset=TEST)
    assert trainer.train().step == 3
    assert (tmp_path / "final").is_dir()
    again = run(config_of(tmp_path, patience=2), reward=lambda *_: 0.0, eval_dataset=TEST)
    assert again.train().step == 3
    assert run(config_of(tmp_path, patience=3), reward=lambda *_: 0.0, eval_dataset=TEST).train().step == 4


def test_best_by_another_measure_is_not_compared(tmp_path):
    run(config_of(tmp_path, steps=1), reward=scripted([0.1, 0.2]), eval_dataset=TEST)
    with pytest.raises(ValueError, match=r"best.json names the best model by another measure \(metric: "):
        run(config_of(tmp_path, metric="accuracy"), eval_dataset=TEST)
    (tmp_path / "best.json").unlink()
    run(config_of(tmp_path, metric="accuracy", steps=2), eval_dataset=TEST)


def test_evaluation_without_a_grade_is_never_the_best(tmp_path):
    run(config_of(tmp_path, steps=1), reward=lambda *_: None, eval_dataset=TEST)
    assert best_model(tmp_path) is None
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": {"best": "accuracy"}}, "train.best: 'accuracy' needs evaluations, and eval.every is 0"),
        ({"train": {"patience": 2}}, "train.patience: 2 needs train.best"),
        (
            {"train": {"best": "eval/t9_s9/accuracy"}, "eval": EVAL},
            r"train.best: must be one of accuracy, eval/t3_s4/accuracy, .* got 'eval/t9_s9/accuracy'",
        ),
    ],
)
def test_metric_that_no_evaluation_has_is_refused(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path, **tables), eval_dataset=TEST)
    assert not list(tmp_path.iterdir())


def test_best_model_that_is_gone_is_said(tmp_path):
    run(config_of(tmp_path, steps=1), eval_dataset=TEST)
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(ValueError, match=r"names best/step-0000000\d, which is gone"):
        run(config_of(tmp_path, steps=2), eval_dataset=TEST)


def test_unknown_metric_is_refused_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("elastic.models.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    config = build_config(tmp_path, train={"best": "eval/t9_s9/accuracy"}, eval={"every": 1, "count": 2})
    with pytest.raises(ValueError, match=r"train.best: must be one of"):
        build_trainer(config)
