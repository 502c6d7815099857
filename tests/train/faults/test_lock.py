"""Two runs in one output directory are refused, whoever starts the second and wherever it runs."""

import json
import os
import signal
import time

import pytest

from elastic.train import train_from_config
from elastic.train.run.lock import LOCK_FILE, OutputLock, check_unlocked
from tests.forked import LIMIT_S, fork, free_port, start, status
from tests.train.faults.runs import assert_same, config, fresh, train


class One:
    """The accelerator of one process."""

    is_main_process, num_processes = True, 1


def refusal(output):
    return rf"train.output_dir: another run is writing into {output}: process \d+ on .+, since 2.*UTC; wait"


def test_second_run_of_one_process_is_refused_and_disturbs_nothing(tmp_path):
    train(tmp_path / "whole")
    output, seen = tmp_path / "run", []

    def second(progress, record):
        if progress.step == 3:
            before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
            for begin in (fresh(output).train, lambda: train_from_config(config(output))):
                with pytest.raises(ValueError, match=refusal(output)):
                    begin()
            assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
            seen.append(json.loads((output / LOCK_FILE).read_text())["pid"])

    train(output, callbacks=[second])
    assert seen == [os.getpid()]
    assert_same(output, tmp_path / "whole")


def test_run_is_refused_while_the_old_one_lives_and_not_after_its_sigkill(tmp_path):
    def forever(progress, record):
        worker = start(lambda: time.sleep(LIMIT_S))  # forked by the run: it outlives it, and holds nothing
        os.write(written, f"{worker}\n".encode())
        time.sleep(LIMIT_S)

    read, written = os.pipe()
    child = start(lambda: train(tmp_path, callbacks=[forever]))
    os.close(written)
    with os.fdopen(read) as line:
        worker = int(line.readline())
    try:
        try:
            with pytest.raises(ValueError, match=refusal(tmp_path)):
                check_unlocked(tmp_path)
            with pytest.raises(ValueError, match=f"process {child} on"):
                train(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)
        assert status(child) == -signal.SIGKILL
        train(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_every_process_of_a_refused_run_ends(tmp_path):
    with OutputLock(tmp_path).held(One):
        port = free_port()
        children = [fork(rank, port, lambda: train(tmp_path)) for rank in range(2)]
        assert [status(child) for child in children] == [1, 1]


def test_trainer_goes_not_on_from_memory_behind_another_runs_back(tmp_path):
    def stop(progress, record):
        if progress.step == 3:
            raise KeyError("stop")

    trainer = fresh(tmp_path, callbacks=[stop])
    with pytest.raises(KeyError):
        trainer.train()
    train(tmp_path)
    with pytest.raises(ValueError, match=r"another run has gone on there, to .*step-00000006; make a new"):
        trainer.train()


@pytest.mark.parametrize("again", [False, True])
def test_directory_that_vanishes_ends_the_run_by_name(tmp_path, again):
    def vanish(progress, record):
        if progress.step == 3:
            (tmp_path / "run").rename(tmp_path / "moved")
            if again:
                (tmp_path / "run").mkdir()

    with pytest.raises(OSError, match=r"train.output_dir: .*/run was removed or replaced while"):
        train(tmp_path / "run", callbacks=[vanish])
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert [path.name for path in (tmp_path / "moved" / "checkpoints").iterdir()] == ["step-00000002"]


def test_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("elastic.train.run.lock.fcntl.flock", refuse)
    message = "has no locks .*Operation not supported.* would not be noticed"
    with pytest.warns(UserWarning, match=message), OutputLock(tmp_path).held(One):
        pass


def test_clock_that_goes_back_changes_nothing(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now.append(now[-1] - 3600) or now[-1])
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1999, 1, 1, 0, 0, 0, 4, 1, 0)))
    with pytest.raises(KeyError):
        train(tmp_path / "run", callbacks=[lambda progress, _: {1: 1, 2: 2, 3: 3}[progress.step]])
    train(tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")
