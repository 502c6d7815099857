"""A resumed run may change on purpose, which is asked for by name and noted."""

import pytest
import torch

from elastic.models.tiny import problems
from elastic.train import TrainConfig
from elastic.train.run import checkpoint as checkpoints
from tests.train.tiny_run import build_config, lines, run

SAVED = {"save_every": 1, "keep_checkpoints": 9}


def begun(tmp_path, steps=2, **tables):
    return run(build_config(tmp_path, train=SAVED | {"steps": steps}, **tables))


def gone_on(tmp_path, allowed, steps=4, train=None, **tables):
    train = SAVED | {"steps": steps, "allow_changes": allowed} | (train or {})
    return run(build_config(tmp_path, train=train, **tables))


def test_refusal_says_how_to_agree_and_the_agreed_change_takes_effect_and_is_noted(tmp_path):
    begun(tmp_path)
    with pytest.raises(
        ValueError, match=r'optim.lr: 0.01 -> 0.5; to change them .*: train.allow_changes = \["optim.lr"\]'
    ):
        gone_on(tmp_path, ["loss.*"], optim={"lr": 0.5})
    trainer = gone_on(tmp_path, ["optim.lr"], optim={"lr": 0.5})
    assert [record["lr"] for record in lines(tmp_path / "metrics.jsonl")] == [0.01, 0.01, 0.5, 0.5]
    assert lines(tmp_path / "changes.jsonl") == [{"step": 2, "changes": ["optim.lr: 0.01 -> 0.5"]}]
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5
    # The checkpoints of the changed run have its values: no change, no consent, no further note.
    run(build_config(tmp_path, train=SAVED | {"steps": 5}, optim={"lr": 0.5}))
    assert len(lines(tmp_path / "changes.jsonl")) == 1


def test_settings_of_the_optimizer_are_those_of_the_file_not_of_the_checkpoint(tmp_path):
    begun(tmp_path)
    changed = {"lr": 1e-2, "beta1": 0.5, "weight_decay": 0.25, "eps": 1e-3}
    groups = gone_on(tmp_path, ["optim.*"], optim=changed).optimizer.param_groups
    assert [(g["betas"], g["weight_decay"], g["eps"]) for g in groups] == [
        ((0.5, 0.999), 0.25, 1e-3),
        ((0.5, 0.999), 0.0, 1e-3),
    ]


def test_problems_go_on_where_they_were_with_other_prompts_a_step(tmp_path):
    begun(tmp_path)  # 2 steps of 4 of 12 problems in their order
    seen = []
    run(
        build_config(
            tmp_path,
            train=SAVED | {"steps": 4, "allow_changes": ["rollout.prompts_per_step"]},
            rollout={"prompts_per_step": 2},
        ),
        reward=lambda response, answer: seen.append(answer) or 0.0,
    )
    order = []
    run(build_config(tmp_path / "whole"), reward=lambda response, answer: order.append(answer) or 0.0)
    assert seen == order[2 * 16 :], "the last four of twelve problems, each once, four samples of each"
    assert checkpoints.newest_checkpoint(tmp_path).progress.position == 12


def test_schedule_ends_with_the_run_where_steps_have_more_updates_than_before(tmp_path):
    optim = {"lr": 0.01, "schedule": "linear"}
    begun(tmp_path, optim=optim)
    train = {"minibatches": 2}
    trainer = gone_on(tmp_path, ["train.minibatches"], train=train, optim=optim)
    records = lines(tmp_path / "metrics.jsonl")
    # Updates 0 and 1 of 2 as planned at first, then 2 to 5 of 6: a step's line has the rate of its last one.
    assert [record["lr"] for record in records] == pytest.approx([0.01, 0.0, 0.01 * 2 / 5, 0.0])
    assert checkpoints.newest_checkpoint(tmp_path).progress.update == 6
    assert trainer.train().update == 6


def test_other_training_problems_need_consent_too(tmp_path):
    begun(tmp_path)
    other = problems(12, seed=1)
    config = build_config(tmp_path, train=SAVED | {"steps": 3, "allow_changes": ["optim.lr"]})
    with pytest.raises(ValueError, match="was made with other training problems"):
        run(config, dataset=other)
    config = build_config(tmp_path, train=SAVED | {"steps": 3, "allow_changes": ["data.*"]})
    run(config, dataset=other)
    assert lines(tmp_path / "changes.jsonl") == [{"step": 2, "changes": ["training problems"]}]


def test_note_of_a_lost_attempt_is_replaced_and_changes_of_steps_done_again_are_dropped(tmp_path):
    begun(tmp_path)
    for lr in (0.3, 0.4):
        for step in (3, 4):
            path = checkpoints.checkpoint_path(tmp_path, step)
            if path.exists():
                checkpoints.remove_directory(path)
        gone_on(tmp_path, ["optim.lr"], optim={"lr": lr})
    assert lines(tmp_path / "changes.jsonl") == [{"step": 2, "changes": ["optim.lr: 0.01 -> 0.4"]}]


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ("optim.learning_rate", "train.allow_changes: no key 'optim.learning_rate'"),
        ("rollout.promts_per_step", "did you mean 'rollout.prompts_per_step'"),
        ("lr", "no key 'lr'"),
        ("model.path", "'model.path' cannot change"),
        ("adapter.rank", "'adapter.rank' cannot change"),
    ],
)
def test_consent_to_what_is_not_there_or_cannot_change_is_refused(tmp_path, allowed, message):
    with pytest.raises(ValueError, match=message):
        build_config(tmp_path, train={"allow_changes": [allowed]})


def test_unchanged_checkpoint_gives_the_same_weights_with_consent_as_without(tmp_path):
    whole = run(build_config(tmp_path / "whole", train=SAVED | {"steps": 4}))
    begun(tmp_path / "parts")
    parts = gone_on(tmp_path / "parts", ["optim.*", "rollout.*"])
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not (tmp_path / "parts" / "changes.jsonl").exists()


def test_model_never_changes_whatever_its_table_allows():
    table = {
        "model": {"path": "tiny"},
        "data": {"source": "tiny", "count": 4},
        "train": {"output_dir": "out", "allow_changes": ["model.*"]},
    }
    from elastic.train.config.consent import how_to_agree, split_changes

    config = TrainConfig.from_table(table)
    changes = ["model.dtype: 'float32' -> 'auto'", "model.path: 'tiny' -> 'other'"]
    refused, agreed = split_changes(changes, config.train.allow_changes)
    assert (refused, agreed) == (changes[1:], changes[:1])
    assert how_to_agree(refused) == ""
