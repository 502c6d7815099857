"""Checkpoints on disk: whole or not there, checked when read, refused when they belong to another run."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train.run.checkpoint import (
    newest_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from elastic.train.run.directories import write_directory
from elastic.train.run.progress import Progress
from tests.train.tiny_run import build_config, run


def write(directory):
    (directory / "model").mkdir()
    (directory / "model" / "weights.bin").write_bytes(b"12345")


def save(output, step, keep=2, writer=write):
    return save_checkpoint(output, Progress(step, step * 2, step * 8), {"optim": {"lr": 1.0}}, writer, keep)


def test_newest_checkpoint_has_what_was_saved(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step in (9, 10):
        save(tmp_path, step)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.progress == Progress(10, 20, 80)
    assert newest.config == {"optim": {"lr": 1.0}}
    assert (newest.model / "weights.bin").read_bytes() == b"12345"


def test_only_the_last_ones_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004", "step-00000005"]


def test_a_failed_write_leaves_the_earlier_checkpoint_alone(tmp_path):
    save(tmp_path, 1)

    def fail(directory):
        write(directory)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2, writer=fail)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.progress.step == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def other_step(state):
    state.write_text(state.read_text().replace('"step": 3', '"step": 7'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: (path / "model" / "weights.bin").write_bytes(b"1234"),
            "weights.bin is damaged: its SHA-256 .* remove the checkpoint's directory",
        ),
        (
            lambda path: (path / "model" / "weights.bin").write_bytes(b"12344"),  # the size is right
            "weights.bin is damaged: its SHA-256",
        ),
        (lambda path: (path / "model" / "weights.bin").unlink(), "weights.bin is missing; SHA256SUMS lists"),
        (lambda path: (path / "SHA256SUMS").unlink(), "SHA256SUMS is missing or damaged"),
        (lambda path: other_step(path / "state.json"), "state.json is damaged: its SHA-256"),
        (lambda path: (path / "state.json").write_text("{"), "state.json is damaged, missing or not of"),
        (lambda path: (path / "state.json").unlink(), "state.json is damaged, missing"),
        (lambda path: (path / "state.json").write_text('{"format": 99}'), "format 99, this version reads 3"),
    ],
)
def test_damage_is_named_with_what_to_do(tmp_path, damage, message):
    damage(save(tmp_path, 3))
    with pytest.raises(ValueError, match=message):
        newest_checkpoint(tmp_path)


def test_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "final"
    write_directory(target, write)
    write_directory(target, lambda directory: (directory / "other").write_text("x") and None)
    assert [path.name for path in target.iterdir()] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_generators_go_on_where_they_were(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]  # noqa: NPY002

    draw()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    draw()
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected


def test_finished_run_started_again_does_nothing(tmp_path):
    config = build_config(tmp_path, train={"save_every": 2})
    run(config)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    calls = []
    run(config, callbacks=[lambda progress, record: calls.append(progress)])
    assert calls == []
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_final_model_loads_with_transformers(tmp_path):
    trainer = run(build_config(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    for (name, a), b in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    text = "<bos> 1 + 2 = ? <think>"
    assert AutoTokenizer.from_pretrained(tmp_path / "final").encode(text) == build_tokenizer().encode(text)


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    run(build_config(tmp_path, train={"save_every": 1}))
    with pytest.raises(ValueError, match=r"another configuration.*optim.lr: 0.01 -> 0.02"):
        run(build_config(tmp_path, train={"save_every": 1}, optim={"lr": 0.02}))
    with pytest.raises(ValueError, match=r"train.resume: 'never', but .*step-00000003 exists"):
        run(build_config(tmp_path, train={"resume": "never"}))
    with pytest.raises(ValueError, match=r"train.steps: must be at least the 3 steps .* got 2"):
        run(build_config(tmp_path, train={"steps": 2}))


def test_longer_run_goes_on_from_a_shorter_one(tmp_path):
    run(build_config(tmp_path, train={"save_every": 2}))
    run(build_config(tmp_path, train={"save_every": 2, "steps": 5}))
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_directory_holds_the_configuration_that_ran(tmp_path):
    from elastic.train import TrainConfig

    config = build_config(tmp_path)
    run(config)
    assert TrainConfig.load(tmp_path / "config.toml") == config
