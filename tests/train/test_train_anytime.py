"""Several cuts of one thought in training: advantages by hand, every token once, runs that resume exactly."""

import pytest
import torch
from safetensors.torch import load_file

from elastic import Budget, RolloutBatch, RolloutEngine, Sampling
from elastic.models.tiny import problems
from elastic.rollout.cuts import cut_thoughts, solutions_behind_cuts
from elastic.train import TrainConfig
from elastic.train.collect.brpo import thought_advantages
from elastic.train.collect.cut_experience import Answered, cut_experience
from tests.forked import free_port, status
from tests.rollout.small_models import biased, make_tokenizer
from tests.train.test_train_processes import fork
from tests.train.tiny_run import build_config, lines, nines, run

CUTS = {"cuts": [2, 4, 6], "cut_samples": 2}


def anytime(output, *, steps=2, budget=None, **tables):
    train = {"steps": steps, "save_every": 1} | tables.pop("train", {})
    return build_config(output, train=train, budget=CUTS | (budget or {}), **tables)


def test_a_segment_takes_the_rewards_of_the_cuts_that_see_it():
    rewards = torch.tensor([[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    found = thought_advantages(rewards, torch.tensor([1.0, 1.0, 2.0])) * 36
    # weights 1/4 1/4 1/2; returns .75 .75 .5 and .5 .5 .5; their means .625 .625 .5
    # reached before cut 1: 0, 0; before cut 2: 2/3, 0; times what is ahead, .75 and .5
    first = [0.75 - 0.625, 0.75 - 2 / 3 * 0.625, 0.5 - (2 / 3 * 1 / 3 + 1 / 3 * 0.5)]
    second = [0.5 - 0.625, 0.5 - 2 / 3 * 0.625, 0.5 - 1 / 3 * 0.5]
    torch.testing.assert_close(found[0], torch.tensor([first, second], dtype=torch.float64) * 36)


def test_a_thought_without_a_reward_has_no_advantage_and_no_part_in_the_mean():
    rewards = torch.tensor([[[1.0, 0.0], [float("nan"), 1.0], [0.0, 0.0]]])
    found = thought_advantages(rewards, torch.ones(2))
    assert found[0, 1].tolist() == [0, 0]
    expected = thought_advantages(rewards[:, [0, 2]], torch.ones(2))
    assert torch.equal(found[:, [0, 2]], expected)


def test_one_cut_is_the_reward_less_the_mean():
    rewards = torch.tensor([[[1.0], [0.0], [0.5], [0.5]]])
    assert thought_advantages(rewards, torch.tensor([3.0]))[0, :, 0].tolist() == [0.5, -0.5, 0.0, 0.0]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return run(anytime(tmp_path_factory.mktemp("anytime"), steps=1))


def test_rows_stand_behind_what_they_were_sampled_behind(trainer):
    trainer._refresh_engine()
    collected = trainer._collector.collect(1, 4)
    experience = collected.experience
    found = trainer._policy.logprobs(experience)
    for logprobs, recorded, mask in zip(found, experience.old_logprobs, experience.mask, strict=True):
        torch.testing.assert_close(logprobs[mask], recorded[mask], atol=2e-5, rtol=0)
    assert len(experience.prompts) < len(experience)  # shared ones stand once
    assert len(set(map(tuple, experience.prompts))) == len(experience.prompts)


def answered_by_hand():
    """Eight thoughts of a model that likes to end them, two solutions behind each of three cuts."""
    engine, sampling = RolloutEngine(biased(0, 3, 2.0), make_tokenizer()), Sampling(1.0, seed=3)
    thoughts = engine.generate(["a<think>", "bc<think>"], Budget(9, 1), 4, sampling)
    budgets = [Budget(cut, 5) for cut in (2, 5, 9)]
    solved = solutions_behind_cuts(engine, thoughts, budgets, samples_per_cut=2, sampling=sampling)
    kept = torch.stack([cut_thoughts(thoughts, budget).lengths for budget in budgets])
    repeated = torch.zeros(3, 8, 2, dtype=torch.bool)
    repeated[1:] = (kept[1:] == kept[:-1])[..., None]
    return Answered(thoughts, kept, RolloutBatch.cat(solved), repeated)


def test_every_sampled_token_carries_loss_once():
    answered = answered_by_hand()
    thoughts, kept, solved, repeated = answered
    assert 0 < int(repeated.sum()) < repeated.numel()
    advantages = torch.arange(24.0).view(3, 8) + 1
    found = cut_experience(
        answered,
        advantages,
        advantages[..., None] * torch.tensor([100.0, 1000.0]),
        torch.zeros(3, 8, 2).bool(),
    )
    in_thoughts = torch.arange(thoughts.tokens.shape[1]) < kept[-1][:, None]
    solutions = (torch.arange(solved.tokens.shape[1]) >= kept.repeat_interleave(2, 1).flatten()[:, None]) & (
        ~repeated.flatten()[:, None]
    )
    tokens = int((thoughts.sampled & in_thoughts).sum()) + int((solved.sampled & solutions).sum())
    assert found.loss_tokens == tokens
    rows = {}
    for k, completion, advantage in zip(
        found.prompt_of, found.completions, found.advantages.tolist(), strict=True
    ):
        rows.setdefault(tuple(found.prompts[k] + completion.tolist()), []).append(advantage)
    for row in range(8):
        whole = thoughts.prompt(row) + thoughts.tokens[row].tolist()
        question = len(thoughts.prompt(row))
        for cut in range(3):
            if cut == 0 or kept[cut, row] > kept[cut - 1, row]:
                segment = tuple(whole[: question + int(kept[cut, row])])
                assert float(advantages[cut, row]) in rows[segment]
            for sample in range(2):
                place = (cut * 8 + row) * 2 + sample
                text = tuple(solved.prompt(place) + solved.tokens[place, : solved.lengths[place]].tolist())
                same = [c for c in range(3) if kept[c, row] == kept[cut, row]]
                expected = float(advantages[same, row].mean()) * (100.0, 1000.0)[sample]
                assert expected == pytest.approx(min(rows[text], key=lambda found: abs(found - expected)))


def test_a_thought_without_any_reward_at_a_cut_is_skipped_with_its_solutions_there():
    answered, ones = answered_by_hand(), torch.ones(3, 8)
    ungraded = torch.zeros(3, 8, 2).bool()
    ungraded[1, 3] = True
    ungraded[2, 5, 0] = True
    found = cut_experience(answered, ones, ones[..., None].expand(3, 8, 2), ungraded)
    whole = cut_experience(answered, ones, ones[..., None].expand(3, 8, 2), torch.zeros(3, 8, 2).bool())
    segments = len(set(answered.kept[:, 3].tolist()))
    ungraded &= ~answered.repeated
    assert sum(found.skipped) == segments + int(ungraded.sum())
    assert found.loss_tokens < whole.loss_tokens
    assert sum(whole.skipped) == 0


def test_advantages_of_solutions_are_those_within_their_cut(trainer):
    collected = trainer._collector.collect(1, 4)
    rewards = collected.rewards.view(3, 16, 2)
    equal = (rewards[..., 0] == rewards[..., 1]).sum()
    assert 0 < int(equal) < 48
    assert collected.metrics["equal_reward_groups"] == pytest.approx(int(equal) / 48)


def test_metrics_have_each_cut_and_the_means_of_all(tmp_path):
    run(anytime(tmp_path, budget={"cut_weights": [0, 1, 3]}))
    for record in lines(tmp_path / "metrics.jsonl"):
        parts = [record[f"anytime/t{cut}/accuracy"] for cut in (2, 4, 6)]
        assert record["accuracy"] == pytest.approx(sum(parts) / 3, abs=1e-6)
        assert 0 < record["anytime/t2/cut_share"] <= 1
        assert record["anytime/t6/solution_tokens"] <= 5


def test_a_resumed_run_is_the_run_of_one_go(tmp_path):
    expected = run(anytime(tmp_path / "whole", steps=3))
    run(anytime(tmp_path / "parts", steps=1))
    resumed = run(anytime(tmp_path / "parts", steps=3))
    for one, other in zip(resumed.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_processes_train_as_one(tmp_path):
    port = free_port()
    children = [fork(tmp_path / "two", rank, port, make=anytime) for rank in range(2)]
    assert [status(child) for child in children] == [0, 0], "see the captured stderr"
    run(anytime(tmp_path / "one"))
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=name)
    for left, right in zip(
        *(lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two")), strict=True
    ):
        for key in left.keys() - {"loss", "clip_fraction", "entropy", "tokens_per_second"}:
            if not key.startswith("seconds"):
                assert left[key] == pytest.approx(right[key], rel=1e-4, abs=5e-6), key


def test_references_minibatches_cut_solutions_and_rows_without_a_reward_go_together(tmp_path):
    def reward(response: str, answer: str) -> float | None:
        return None if len(response) % 11 == 0 else nines(response, answer)

    config = anytime(
        tmp_path,
        steps=4,
        budget={"cut_samples": 1},
        train={"minibatches": 2},
        loss={"kl_coef": 0.01, "mask_cut_solutions": True},
        rollout={"samples_per_prompt": 8},
    )
    run(config, reward=reward, dataset=problems(12))
    records = lines(tmp_path / "metrics.jsonl")
    assert any(record["skipped_rows"] for record in records)
    assert all(record["grad_norm"] > 0 for record in records)


@pytest.mark.parametrize(
    ("budget", "tables", "message"),
    [
        ({"cuts": []}, {}, r"budget.cuts: must be increasing numbers of tokens, got \[\]"),
        ({"cuts": [4, 4]}, {}, r"budget.cuts: must be increasing numbers of tokens, got \[4, 4\]"),
        ({"cuts": [-1, 4]}, {}, "budget.cuts: must be at least 0, got -1"),
        ({"cuts": [2, 7]}, {}, "budget.cuts: must be at most budget.thinking = 6, got 7"),
        ({"cuts": [2], "draw": "random"}, {}, "budget.cuts: needs budget.draw = 'fixed', got 'random'"),
        ({"cut_weights": [1, 2]}, {}, "budget.cut_weights: must be 3 numbers, one per cut, and not all 0"),
        ({"cut_weights": [0, 0, 0]}, {}, "budget.cut_weights: must be 3 numbers, one per cut, and not all 0"),
        ({"cut_samples": 0}, {}, "budget.cut_samples: must be at least 1, got 0"),
        ({}, {"rollout": {"dynamic_sampling": True}}, "rollout.dynamic_sampling: cannot be true with budget"),
        (
            {},
            {"reward": {"length": "l1-max"}},
            "reward.length: must be 'none' with budget.cuts, got 'l1-max'",
        ),
        ({"min_thinking": 3, "max_extensions": 1}, {}, "budget.cuts: .*min_thinking"),
    ],
)
def test_bad_cuts_are_named(tmp_path, budget, tables, message):
    with pytest.raises(ValueError, match=message):
        anytime(tmp_path, budget=budget, **tables)


def test_the_thinking_budget_follows_the_last_cut():
    tables = {"model": {"path": "tiny"}, "data": {"source": "tiny", "count": 8}, "train": {"output_dir": "x"}}
    config = TrainConfig.from_table(tables | {"budget": {"cuts": [8, 2000]}, "method": "anytime"})
    assert config.budget.thinking == 2000
    with pytest.raises(ValueError, match=r"budget.cuts: must be at most budget.thinking = 1024, got 2000"):
        TrainConfig.from_table(tables | {"budget": {"cuts": [8, 2000], "thinking": 1024}})
