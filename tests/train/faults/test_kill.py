"""A run that is killed ten times, at random moments of every kind, ends exactly as one that is not."""

import os
import random
import shutil
import signal
import time

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from elastic.rollout import RolloutEngine
from elastic.train.collect.evaluation import Evaluation
from elastic.train.run import directories
from elastic.train.run.metrics import JsonLines
from elastic.train.run.weights import Weights
from tests.forked import start, status
from tests.train.faults.runs import assert_same, train

STEPS = 40


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(owner, name, call, after=False):
    """The n-th call of a function ends the process before, or after, its work."""
    original, calls = getattr(owner, name), []

    def instead(*arguments, **options):
        calls.append(1)
        if len(calls) == call and not after:
            die()
        found = original(*arguments, **options)
        if len(calls) == call:
            die()
        return found

    setattr(owner, name, instead)


def torn_line(call):
    """The n-th line of metrics or samples is cut short."""
    original, calls = JsonLines.write, []

    def write(self, record):
        calls.append(1)
        original(self, record)
        if len(calls) == call:
            os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - 7)
            die()

    JsonLines.write = write


def in_update(call):
    calls = []

    def before_step(*_):
        calls.append(1)
        if len(calls) == call:
            die()

    register_optimizer_step_pre_hook(before_step)


# Each comes within about three steps: ten of them must not reach the run's end.
MOMENTS = {
    "rollouts": lambda draw: dying(RolloutEngine, "generate", draw.randint(1, 3)),
    "forward": lambda draw: dying(torch.nn.Embedding, "forward", draw.randint(1, 60)),
    "update": lambda draw: in_update(draw.randint(1, 6)),
    "evaluation": lambda draw: dying(Evaluation, "run", 1, after=draw.random() < 0.5),
    "writing weights": lambda draw: dying(Weights, "write", 1, after=draw.random() < 0.5),
    "syncing": lambda draw: dying(directories, "sync", draw.randint(1, 12)),
    "renaming": lambda draw: dying(os, "rename", draw.randint(1, 2), after=draw.random() < 0.5),
    "removing old checkpoints": lambda draw: dying(shutil, "rmtree", 1),
    "writing metrics": lambda draw: torn_line(draw.randint(1, 8)),
    "any": None,
}


def test_ten_kills_at_random_moments_leave_the_run_of_none(tmp_path):
    uninterrupted, started = tmp_path / "uninterrupted", time.monotonic()
    train(uninterrupted, STEPS)
    step_s = (time.monotonic() - started) / STEPS
    output = tmp_path / "killed"
    seed = int(os.environ.get("KILL_SEED", time.time_ns() % 10**6))
    print(f"KILL_SEED={seed}")
    draw = random.Random(seed)
    for moment in draw.sample(list(MOMENTS), len(MOMENTS)):
        arm = MOMENTS[moment]
        child = start(lambda arm=arm: (arm and arm(draw), train(output, STEPS)))
        if arm is None:
            time.sleep(draw.uniform(0, 4 * step_s))
            os.kill(child, signal.SIGKILL)
        assert status(child) == -signal.SIGKILL, f"{moment}: it went on to the end"
        draw.random()  # the child drew from a copy
    train(output, STEPS)
    assert_same(output, uninterrupted)


@pytest.mark.parametrize("name", ["final", "step-00000002"])
@pytest.mark.parametrize("after", [False, True])
def test_kill_while_a_directory_is_replaced_leaves_the_old_or_the_new(tmp_path, name, after):
    target = tmp_path / name
    for content in ("old", "new"):
        child = start(
            lambda content=content: (
                content == "new" and dying(os, "rename", 2, after),
                directories.write_directory(target, lambda path: (path / content).touch()),
            )
        )
        assert status(child) == (0 if content == "old" else -signal.SIGKILL)
    directories.clear_left_overs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in target.iterdir()] == ["new" if after else "old"]


def test_what_a_name_stands_for_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    sync, rename = directories.sync, os.rename
    monkeypatch.setattr(directories, "sync", lambda path: (events.append(path.name), sync(path)))
    monkeypatch.setattr(os, "rename", lambda old, new: (events.append("rename"), rename(old, new)))

    def write(directory):
        (directory / "model").mkdir()
        (directory / "model" / "weights").write_bytes(b"1")
        (directory / "state").write_bytes(b"2")

    directories.write_directory(tmp_path / "one", write)
    before, last = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert sorted(before) == [".unfinished-one", "model", "state", "weights"]
    assert last == [tmp_path.name]
