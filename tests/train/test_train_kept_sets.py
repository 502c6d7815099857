"""Training on rollouts under filters: ratios among the kept ids (docs/kept-set.md)."""

import pytest
import torch

from elastic.train import TrainConfig
from elastic.train.config.no_effect import idle_keys
from elastic.train.update.updates import Updates
from tests.train.tiny_run import build_config, lines, run

FILTERS = {"top_p": 0.8, "top_k": 5}


class Spy(Updates):
    """Keeps the log ratios of the first update, token by token, and its experience."""

    def run(self, experience, step, update):
        if not hasattr(self, "seen"):
            logprobs = torch.cat(self._policy.logprobs(experience))
            mask = torch.cat(experience.mask)
            self.log_ratios = (logprobs - torch.cat(experience.old_logprobs))[mask]
            self.seen = experience
        return super().run(experience, step, update)


def spied(monkeypatch, config: TrainConfig) -> Spy:
    monkeypatch.setattr("elastic.train.trainer.Updates", Spy)
    return run(config)._updates


@pytest.mark.parametrize("linear", ["on", "off"])
@pytest.mark.parametrize("most_kept", [1024, 3, 0])
def test_every_ratio_of_the_first_update_is_one(tmp_path, monkeypatch, linear, most_kept):
    rollout = {**FILTERS, "most_kept": most_kept}
    config = build_config(tmp_path, rollout=rollout, loss={"linear": linear}, train={"steps": 1})
    trainer = spied(monkeypatch, config)
    torch.testing.assert_close(trainer.log_ratios, torch.zeros_like(trainer.log_ratios), atol=2e-5, rtol=0)
    sets = [int(counts.max()) for counts in trainer.seen.kept_counts]
    assert max(sets, default=0) == (4 if most_kept == 1024 else 0)  # top-p leaves 4 of this flat model's ids


def test_old_logprobs_are_those_that_tokens_were_drawn_with(tmp_path, monkeypatch):
    """Over the whole vocabulary the same tokens have the kept mass less, which is what a set puts right."""
    old = {}
    for most_kept in (1024, 0):
        config = build_config(tmp_path / str(most_kept), rollout={**FILTERS, "most_kept": most_kept})
        seen = spied(monkeypatch, config).seen
        old[most_kept] = torch.cat(seen.old_logprobs)[torch.cat(seen.mask)]
    mass = (old[0] - old[1024]).exp()
    assert (mass < 1 + 1e-5).all()
    assert mass.min() < 0.9


def test_a_run_under_filters_learns(tmp_path):
    """Several updates a batch, a reference and an entropy bonus, all among the kept ids."""
    config = build_config(
        tmp_path,
        rollout=FILTERS,
        train={"steps": 6, "minibatches": 2, "epochs_per_batch": 2, "accumulation_steps": 2},
        loss={"kl_coef": 0.01, "entropy_coef": 0.001, "old_logprobs": "recompute"},
    )
    run(config)
    records = lines(tmp_path / "metrics.jsonl")
    steps = [record for record in records if "loss" in record]
    assert len(steps) == 6
    assert all(0 <= record["entropy"] < 1.7 for record in steps)  # of at most 5 ids: ln 5 = 1.61
    assert steps[-1]["reward"] > steps[0]["reward"]


def test_thoughts_that_are_cut_have_no_sets(tmp_path):
    assert (
        build_config(tmp_path, budget={"cuts": [2, 6], "thinking": 6}, rollout=FILTERS).sampling.most_kept
        == 0
    )


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"rollout": {"most_kept": 50}}, "no filter is on"),
        ({"rollout": {**FILTERS, "most_kept": 50}, "budget": {"cuts": [2, 6], "thinking": 6}}, "budget.cuts"),
    ],
)
def test_a_limit_without_effect_is_said(tmp_path, tables, reason):
    assert reason in idle_keys(build_config(tmp_path, **tables))["rollout.most_kept"]


def test_a_limit_with_a_filter_has_an_effect(tmp_path):
    assert "rollout.most_kept" not in idle_keys(build_config(tmp_path, rollout={"min_p": 0.1}))
