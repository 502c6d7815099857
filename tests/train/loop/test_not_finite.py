"""What is not finite ends the run, with the rows or weights it is in, and can be looked into again."""

import pytest
import torch

from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import Trainer
from elastic.train.collect.collector import Collector
from elastic.train.collect.rescue import NotFinite, rows_in_words
from elastic.train.update.policy import Policy
from tests.train.tiny_run import build_config, build_model, lines, nines


def trainer_of(tmp_path, model=None, **tables):
    torch.manual_seed(5)
    config = build_config(tmp_path, **tables)
    return Trainer(config, model or build_model(), build_tokenizer(), problems(12), nines)


def broken_gradient(at):
    """A model whose gradient is NaN in its n-th backward pass."""
    model, seen = build_model(), []

    def hook(grad):
        seen.append(1)
        return grad * float("nan") if len(seen) == at else grad

    model.model.norm.weight.register_hook(hook)
    return model


def test_gradient_alone_says_that_all_logprobs_are_finite(tmp_path):
    with pytest.raises(NotFinite) as caught:
        trainer_of(tmp_path, broken_gradient(4), train={"minibatches": 2}).train()
    said = str(caught.value)
    assert said.startswith(
        "step 2: the gradient's norm is nan in update 2 of the step; the weights are those of"
    )
    assert "weights and logprobs are finite" in said
    assert "log-ratio" in said


def test_rows_without_finite_logprobs_are_named_as_in_the_saved_batch(tmp_path, monkeypatch):
    original = Collector.collect

    def collect(self, step, position):
        found = original(self, step, position)
        if step == 1:
            for row in (3, 7):
                found.experience.old_logprobs[row][2] = float("nan")
        return found

    monkeypatch.setattr(Collector, "collect", collect)
    with pytest.raises(NotFinite, match=r"old logprobs are not finite in 2 of 16 rows \(3, 7\)"):
        trainer_of(tmp_path, loss={"skip_zero_advantage": False}).train()


def test_weights_that_hold_nan_are_named(tmp_path):
    trainer = trainer_of(tmp_path)
    original = trainer._updates.run

    def run(*arguments):
        with torch.no_grad():
            trainer.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
        return original(*arguments)

    trainer._updates.run = run
    with pytest.raises(NotFinite, match=r"1 weights hold NaN .*'model.layers.1.mlp.up_proj.weight'"):
        trainer.train()


def test_rollout_with_a_logprob_that_is_not_finite_is_saved_and_not_trained_on(tmp_path, monkeypatch):
    original = Collector.collect

    def collect(self, step, position):
        found = original(self, step, position)
        found.batch.logprobs[5, 0] = float("nan")
        return found

    monkeypatch.setattr(Collector, "collect", collect)
    trainer = trainer_of(tmp_path)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(NotFinite, match=r"the rollout's logprobs of 1 of 16 rows \(5\) are not finite"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert (tmp_path / "failed" / "step-00000001-rollouts-process-0.safetensors").is_file()


def test_loss_that_is_not_finite_beside_finite_gradients_ends_the_run(tmp_path, monkeypatch):
    original = Policy.backward

    def backward(self, part, num_tokens, num_rows, stats):
        original(self, part, num_tokens, num_rows, stats)
        stats.add(loss=float("nan"))

    monkeypatch.setattr(Policy, "backward", backward)
    with pytest.raises(NotFinite, match="step 1: the loss is nan, but its gradients are finite"):
        trainer_of(tmp_path).train()


def test_replay_runs_the_failed_updates_on_the_weights_before_them_and_training_goes_on(tmp_path):
    whole = trainer_of(tmp_path / "whole", train={"steps": 3})
    whole.train()
    output = tmp_path / "broken"
    with pytest.raises(NotFinite):
        trainer_of(output, broken_gradient(2), train={"steps": 3}).train()
    again = trainer_of(output, train={"steps": 3})
    metrics = again.replay()
    (wanted,) = [record for record in lines(tmp_path / "whole" / "metrics.jsonl") if record["step"] == 2]
    assert {name: wanted[name] for name in ("loss", "grad_norm", "entropy", "lr")} == {
        name: metrics[name] for name in ("loss", "grad_norm", "entropy", "lr")
    }
    files = {path.name for path in (output / "checkpoints").iterdir()}
    assert files == {"step-00000001"}, "a replay saves nothing"
    again.train()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_replay_of_a_step_that_did_not_fail_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="step 1 did not fail in its updates"):
        trainer_of(tmp_path).replay()


def test_rows_in_words():
    assert rows_in_words(range(16), 16) == "all 16 rows"
    assert rows_in_words(list(range(9)), 16) == "9 of 16 rows (0, 1, 2, 3, 4, 5, 6, 7, ...)"
