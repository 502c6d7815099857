"""Processes with batches of different sizes, which nevertheless run the same forward passes."""

from dataclasses import replace

import pytest

from elastic.models.tiny import problems
from tests.train.processes.group import assert_same_weights, ddp, fsdp2, train_two, zero3
from tests.train.test_train_accumulation import random_experience
from tests.train.tiny_run import build_config, nines, run

PROBLEMS = problems(12)
# Of a step's four groups the second process has the last two.
SECOND = {PROBLEMS[place].answer for place in (2, 3, 6, 7)}


def config(output, **rollout):
    return build_config(
        output,
        data={"shuffle": False},
        train={"steps": 2, "micro_batch_tokens": 40},
        optim={"lr": 1e-2, "eps": 1e-4},
        rollout=rollout,
    )


def equal_in_the_second(response, answer):
    return 0.5 if answer in SECOND else nines(response, answer)


def none_in_the_second(response, answer):
    return None if answer in SECOND else nines(response, answer)


@pytest.mark.parametrize(
    ("kind", "reward", "dynamic"),
    [
        (ddp, none_in_the_second, False),
        (fsdp2, equal_in_the_second, False),
        (fsdp2, none_in_the_second, True),
        (zero3, equal_in_the_second, True),
    ],
)
def test_process_without_a_gradient_runs_the_passes_of_the_other(tmp_path, kind, reward, dynamic):
    two, one = (config(tmp_path / name, dynamic_sampling=dynamic) for name in ("two", "one"))
    assert train_two(two, kind, dataset=PROBLEMS, reward=reward) == [0, 0], "see the captured stderr"
    run(one, dataset=PROBLEMS, reward=reward)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_padding_is_the_shortest_row_without_loss():
    experience = random_experience([5, 3, 4], [0, 0, 1])
    padding = experience.without_loss()
    assert padding.lengths == [3]
    assert padding.loss_tokens == 0


def test_evaluation_that_fails_in_one_process_leaves_a_checkpoint_of_both(tmp_path):
    first, second = problems(2, split="test")
    test = [first, replace(second, answer="of the second process")]

    def fails_in_the_second(response, answer):
        if answer == test[1].answer:
            raise KeyError("the grader is gone")
        return nines(response, answer)

    evaluation = {"every": 1, "count": 2, "budgets": [[3, 4]], "at_start": False}
    tables = {"train": {"steps": 2}, "eval": evaluation}
    failing = build_config(tmp_path, **tables)
    assert train_two(failing, reward=fails_in_the_second, eval_dataset=test) == [1, 1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
