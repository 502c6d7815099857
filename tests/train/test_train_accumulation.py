"""Whole trajectories: how a step is cut into micro-batches must not matter."""

import json

import pytest
import torch

from elastic.train.collect.experience import Experience
from elastic.train.update.minibatches import minibatches
from tests.train.tiny_run import build_config, nines, run

# Adam divides by the gradient's own size, so where that is rounding noise (key biases) its direction is
# noise too; a larger eps keeps such entries still. The rest of the comparison is untouched by it.
OPTIM = {"lr": 1e-2, "eps": 1e-4}


def trajectory(output, train=None, **tables):
    """Weights after the run, and what was logged of every step."""
    config = build_config(output, train={"steps": 4} | (train or {}), optim=OPTIM, **tables)
    trainer = run(config)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), lines


LOSSES = [
    {"loss": "dapo"},
    {"loss": "grpo", "kl_coef": 0.05},
    {"loss": "bnpo", "mask_cut_solutions": True},
    {"loss": "dr_grpo", "entropy_coef": 0.01},
    {"loss": "gspo", "advantage": "rloo"},
    {"loss": "cispo", "clip_high": 5.0, "advantage": "batch"},
    {"loss": "sapo", "old_logprobs": "recompute"},
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["loss"])
def test_eight_micro_batches_give_the_trajectory_of_one(tmp_path, loss):
    one, one_lines = trajectory(tmp_path / "1", {"accumulation_steps": 1}, loss=loss)
    eight, eight_lines = trajectory(tmp_path / "8", {"accumulation_steps": 8}, loss=loss)
    torch.testing.assert_close(eight, one, rtol=0, atol=2e-6)
    for left, right in zip(eight_lines, one_lines, strict=True):
        for key in ("reward", "thinking_tokens", "lr"):
            assert left[key] == right[key]
        for key in ("loss", "grad_norm", "entropy", "clip_fraction"):
            assert left[key] == pytest.approx(right[key], rel=1e-3, abs=1e-6), key


def test_a_limit_on_tokens_gives_the_same_trajectory(tmp_path):
    one, _ = trajectory(tmp_path / "1")
    limited, _ = trajectory(tmp_path / "limited", {"micro_batch_tokens": 40})
    torch.testing.assert_close(limited, one, rtol=0, atol=2e-6)


def test_rows_decoded_together_do_not_change_the_trajectory(tmp_path):
    eight, _ = trajectory(tmp_path / "8", rollout={"max_rows": 8})
    three, _ = trajectory(tmp_path / "3", rollout={"max_rows": 3})
    torch.testing.assert_close(three, eight, rtol=0, atol=2e-6)


def test_accumulation_in_every_minibatch_of_several_epochs(tmp_path):
    loop = {"epochs_per_batch": 2, "minibatches": 2}
    one, lines = trajectory(tmp_path / "1", loop)
    four, _ = trajectory(tmp_path / "4", loop | {"accumulation_steps": 4})
    torch.testing.assert_close(four, one, rtol=0, atol=4e-6)
    # Off-policy from the second optimizer step on: the ratio moves, so the clip can act.
    assert len(lines) == 4


def random_experience(lengths, prompt_of):
    generator = torch.Generator().manual_seed(0)
    completions = [torch.randint(0, 9, (n,), generator=generator) for n in lengths]
    ones = [torch.ones(n, dtype=torch.bool) for n in lengths]
    logprobs = [torch.zeros(n) for n in lengths]
    prompts = [[1, 2, 3] for _ in range(max(prompt_of) + 1)]
    return Experience(
        prompts, prompt_of, completions, ones, logprobs, torch.arange(len(lengths)) * 1.0, logprobs
    )


def test_pieces_keep_every_row_once_in_order_and_balance_tokens():
    lengths = [9, 1, 1, 1, 9, 3, 3, 3, 9, 9]
    experience = random_experience(lengths, [0] * 5 + [1] * 5)
    parts = experience.split(3)
    assert [row for part in parts for row in part.advantages.tolist()] == list(range(10))
    assert [sum(part.lengths) for part in parts] == [12, 18, 18]
    assert len(experience.split(10)) == 10
    assert all(len(part) == 1 for part in experience.split(10))
    assert len(experience.split(1)) == 1


def test_pieces_respect_the_token_limit_with_their_prompts():
    experience = random_experience([9, 1, 1, 1, 9, 3, 3, 3, 9, 9], [0] * 5 + [1] * 5)
    for part in experience.split(1, most_tokens=20):
        assert sum(part.lengths) + 3 * len(set(part.prompt_of)) <= 20
    alone = experience.split(1, most_tokens=1)
    assert [len(part) for part in alone] == [1] * 10, "a row longer than the limit goes alone"


def test_minibatches_hold_whole_groups_each_once():
    groups = [row // 3 for row in range(12)]
    parts = minibatches(groups, 3, lambda order: order.reverse())
    assert [sorted({row // 3 for row in part}) for part in parts] == [[3], [2], [0, 1]]
    assert sorted(row for part in parts for row in part) == list(range(12))
    assert minibatches(groups, 1) == [list(range(12))]


def test_the_easy_reward_is_graded_as_written():
    assert nines("</think> 9 9 1 0", "") == 0.5
    assert nines("", "") == 0.0
