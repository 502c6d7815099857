"""A full disk ends the run by name, costs no checkpoint, and once there is space the run goes on."""

import errno
import os
import resource
import shutil
from collections import namedtuple
from contextlib import contextmanager

import pytest

from elastic.train.run import directories
from elastic.train.run.checkpoint import checkpoint_paths, newest_checkpoint, save_checkpoint
from elastic.train.run.metrics import JsonLines, MetricsLog
from elastic.train.run.progress import Progress
from elastic.train.run.state import RunState
from tests.train.faults.runs import assert_same, fresh, train


@contextmanager
def disk():
    """Inside, `full(n)` makes the kernel refuse every byte of a file behind the n-th."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))

    try:
        yield full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    train(output)
    return output


@pytest.mark.parametrize(
    ("moment", "count", "message", "left"),
    [
        # The weights are 94 kB, the optimizer's file is twice that.
        (None, 40_000, r"could not be written \(.*File too large.*are free.*go on.*step-00000004'", [2]),
        (None, 120_000, r"could not be written \(.*are free.*untouched.*step-00000004'", [2]),
        ((MetricsLog, "step"), 700, r"File too large: '.*metrics.jsonl'", [2]),
        ((MetricsLog, "samples"), 100, r"File too large: '.*samples.jsonl'", [2]),
        ((RunState, "save_model"), 40_000, r"could not be written.*are free.*final'", [6]),
    ],
)
def test_disk_that_gets_full_keeps_the_checkpoint_and_the_run_goes_on(
    tmp_path, monkeypatch, uninterrupted, moment, count, message, left
):
    with disk() as full, monkeypatch.context() as patched:
        if moment is not None:
            original, calls = getattr(*moment), []

            def instead(self, *arguments):
                calls.append(1)
                if arguments[0] == tmp_path / "final" or (moment[1] != "save_model" and len(calls) == 3):
                    full(count)
                return original(self, *arguments)

            patched.setattr(*moment, instead)
        with pytest.raises(OSError, match=message):
            train(tmp_path, callbacks=[lambda now, _: moment is None and now.step == 3 and full(count)])
    assert [int(path.name[-8:]) for path in checkpoint_paths(tmp_path)] == left
    assert newest_checkpoint(tmp_path, clean=False).progress.step == left[0]
    train(tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_same_trainer_goes_on_when_there_is_space(tmp_path, uninterrupted):
    with disk() as full:
        gets_full = [lambda progress, record: progress.step == 4 and full(40_000)]
        trainer = fresh(tmp_path, callbacks=gets_full)
        with pytest.raises(OSError, match="step-00000004"):
            trainer.train()
    trainer.train()
    assert_same(tmp_path, uninterrupted)


def write(directory):
    (directory / "model").mkdir()
    (directory / "model" / "weights").write_bytes(b"12345")


class Failing:
    """A function whose n-th call fails."""

    def __init__(self, function, call):
        self.function, self.call, self.calls = function, call, 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.function(*arguments, **options)


@pytest.mark.parametrize(
    ("owner", "name"), [(directories, "sync"), (os, "mkdir"), (os, "rename"), (shutil, "rmtree")]
)
def test_error_at_any_call_leaves_a_whole_checkpoint(tmp_path, monkeypatch, owner, name):
    save_checkpoint(tmp_path, Progress(1), {}, write, keep=1)
    function = getattr(owner, name)
    for call in range(1, 20):
        failing = Failing(function, call)
        monkeypatch.setattr(owner, name, failing)
        try:
            save_checkpoint(tmp_path, Progress(2), {}, write, keep=1)
        except OSError:
            monkeypatch.setattr(owner, name, function)
            assert newest_checkpoint(tmp_path).progress.step in (1, 2)
        if failing.calls < call:
            break
    assert call > 1, "no call failed"
    assert [path.name for path in checkpoint_paths(tmp_path)] == ["step-00000002"]


def test_space_is_looked_at_before_a_checkpoint_is_written_and_at_the_start(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 9 * 10**5, 10**5))
    with (
        pytest.warns(UserWarning, match=r"100 kB are free in .*; a checkpoint takes about 2\d\d kB"),
        pytest.raises(OSError, match=r"needs 2\d\d kB, 100 kB are free; .*checkpoints/step-00000002'"),
    ):
        train(tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_line_that_did_not_fit_leaves_nothing_of_it(tmp_path):
    log = JsonLines(tmp_path / "a.jsonl", last_step=0)
    log.write({"step": 1})
    with disk() as full:
        full(15)
        with pytest.raises(OSError, match=r"a.jsonl"):
            log.write({"step": 2, "text": "long"})
    log.write({"step": 3})
    log.close()
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_output_that_cannot_be_written_is_named(tmp_path, what):
    (tmp_path / "x").touch()
    output = tmp_path / "x" / ("" if what == "a file" else "run")
    with pytest.raises(ValueError, match=r"train.output_dir: .*/x.* cannot be written"):
        fresh(output).train()
