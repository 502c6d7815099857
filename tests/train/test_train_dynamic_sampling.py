"""Groups whose rewards are all equal are replaced by the next problems' groups, exactly and reproducibly."""

import pytest
import torch

from elastic.data import Problem
from elastic.train.collect.groups import have_signal
from elastic.train.collect.seeds import RandomStream, derive
from tests.train.tiny_run import build_config, lines, run

TWELVE = [Problem(f"<bos> a {n % 10} b + {n // 10} = ? <think>", str(n), str(n)) for n in range(12)]


def equal_for(*ids):
    """A reward that is 1 for every answer to the problems named, and differs between answers to others."""

    def reward(response: str, answer: str) -> float:
        return 1.0 if int(answer) in ids else sum(map(ord, response)) / 1e4

    return reward


def dynamic(output, reward, *, steps=1, **rollout):
    config = build_config(
        output,
        data={"shuffle": False},
        train={"steps": steps, "save_every": 1},
        rollout={"dynamic_sampling": True} | rollout,
    )
    return run(config, dataset=TWELVE, reward=reward)


def test_a_group_has_a_signal_where_two_graded_rewards_differ():
    nan = float("nan")
    rewards = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, nan, 1.0], [1.0, nan, 0.0], [nan] * 3])
    assert have_signal(rewards).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("most", "places", "sampled", "kept"),
    [
        # Of the first batch 0 1 2 3, two are equal; 4 and 5 replace them; 4 is equal too, and 6 replaces it.
        (3, [0, 6, 5, 3], 7, 4),
        (2, [0, 1, 5, 3], 6, 3),  # the first group stays where none had a signal
    ],
)
def test_each_place_takes_the_next_problem_until_its_group_has_a_signal(
    tmp_path, most, places, sampled, kept
):
    trainer = dynamic(tmp_path, equal_for(1, 2, 4), max_batches=most)
    collected = trainer._collector.collect(0, 0)
    assert [int(problem.id) for problem in collected.problems] == places
    assert collected.taken == sampled
    assert (collected.metrics["sampled_groups"], collected.metrics["kept_groups"]) == (sampled, kept)
    assert collected.metrics["equal_reward_groups"] == pytest.approx(1 - kept / 4)
    # Rows and seeds are those of the groups' own numbers, here the problems'.
    assert collected.batch.prompt_index.tolist() == [index for index in range(4) for _ in range(4)]
    expected = [derive(0, RandomStream.ROLLOUT, 0, n * 4 + sample) for n in places for sample in range(4)]
    assert collected.batch.seeds.tolist() == expected
    for group, rewards in enumerate(collected.rewards.view(4, 4)):
        assert bool((rewards != rewards[0]).any()) == (places[group] not in (1, 2, 4))
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert record["epoch"] == sampled / 12
    assert record["rollout_tokens"] > record["completion_tokens"] * 16


def test_where_every_group_has_a_signal_nothing_changes(tmp_path):
    with_option = dynamic(tmp_path / "with", equal_for(), steps=2)
    without = dynamic(tmp_path / "without", equal_for(), steps=2, dynamic_sampling=False)
    for one, other in zip(with_option.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all("sampled_groups" not in record for record in lines(tmp_path / "without" / "metrics.jsonl"))


def test_where_no_group_has_a_signal_the_first_groups_are_used(tmp_path):
    trainer = dynamic(tmp_path, equal_for(*range(12)))
    collected = trainer._collector.collect(0, 0)
    assert [int(problem.id) for problem in collected.problems] == [0, 1, 2, 3]
    assert collected.taken == 12
    assert collected.metrics["kept_groups"] == 0


def test_a_resumed_run_takes_the_problems_that_the_uninterrupted_one_takes(tmp_path):
    reward = equal_for(1, 2, 4, 7)
    whole = dynamic(tmp_path / "whole", reward, steps=3)
    for steps in (1, 3):
        parts = dynamic(tmp_path / "parts", reward, steps=steps)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)
    records = [lines(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for one, other in zip(*records, strict=True):
        assert {key: one[key] for key in one if "second" not in key} == {
            key: other[key] for key in other if "second" not in key
        }
    assert records[0][0]["sampled_groups"] == 7
