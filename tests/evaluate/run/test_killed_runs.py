"""`elastic eval` killed where it hurts: the file is that of a run which nothing stopped."""

import json
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elastic.commands import cli
from elastic.evaluate import EvalSet, evaluate, read_samples
from elastic.evaluate.run import evaluate as harness
from elastic.evaluate.run import folder
from elastic.models import tiny
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling

PROBLEMS = tiny.problems(6, 3, "test")
CHUNKS = 6  # two budgets of vanilla and separate, of which one is shared; three problems a chunk


@pytest.fixture(scope="module")
def engine() -> RolloutEngine:
    return RolloutEngine(*tiny.load(), max_rows=6, progress=False)


def run(engine, out: Path, reward=tiny.reward) -> list:
    problems = EvalSet("tiny", PROBLEMS, reward)
    sampling = Sampling(1.0, seed=4)
    return evaluate(
        *(engine, problems, ["vanilla", "separate"], "6:8,none"),
        samples=2,
        sampling=sampling,
        chunk_rows=6,
        out=out,
        progress=False,
    )


def forked(body: Callable[[], object]) -> int:
    """Runs a function in a process of its own; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child uses none
        child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            body()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # nobody killed it
    return child


def killed(body: Callable[[], object]) -> None:
    """Runs a function in a process of its own, which has to end by SIGKILL."""
    _, status = os.waitpid(forked(body), 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_chunk(number: int, monkeypatch) -> None:
    """Dies when chunk `number`, counted from here, is to be decoded."""
    answer, calls = harness.answer, []

    def counted(*arguments, **named):
        calls.append(1)
        return die() if len(calls) > number else answer(*arguments, **named)

    monkeypatch.setattr(harness, "answer", counted)


def in_a_write(share: float, monkeypatch) -> None:
    """Dies when that share of a chunk's bytes is in the file."""

    def append(self, samples):
        lines = "".join(json.dumps(sample.to_dict()) + "\n" for sample in samples).encode()
        self._file.write(lines[: int(share * len(lines))])
        self._file.flush()
        die()

    monkeypatch.setattr(folder.Folder, "append", append)


def before_the_result(monkeypatch) -> None:
    monkeypatch.setattr(harness, "write_result", die)


KILLS: list[Callable] = [
    lambda patch: at_chunk(0, patch),
    lambda patch: in_a_write(0.6, patch),
    lambda patch: at_chunk(2, patch),
    lambda patch: in_a_write(1.0, patch),
    before_the_result,
]


def test_five_kills_give_the_uninterrupted_file(engine, tmp_path) -> None:
    run(engine, tmp_path / "whole")
    for number, kill in enumerate(KILLS):
        with pytest.MonkeyPatch.context() as patch:
            kill(patch)
            killed(lambda: run(engine, tmp_path / "killed"))
        assert not (tmp_path / "killed/eval.json").exists(), f"after kill {number}"
    samples = run(engine, tmp_path / "killed")
    whole, again = (tmp_path / name / "samples.jsonl" for name in ("whole", "killed"))
    assert again.read_bytes() == whole.read_bytes()
    assert samples == [replace(sample, segments=()) for sample in read_samples(tmp_path / "whole")]
    results = [json.loads((tmp_path / name / "eval.json").read_text()) for name in ("whole", "killed")]
    assert results[0] | {"wall_seconds": 0} == results[1] | {"wall_seconds": 0}


def test_no_sample_of_the_file_is_graded_twice(engine, tmp_path) -> None:
    graded: list[str] = []

    def reward(response: str, answer: str) -> float:
        graded.append(response)
        return tiny.reward(response, answer)

    with pytest.MonkeyPatch.context() as patch:
        at_chunk(2, patch)
        killed(lambda: run(engine, tmp_path, reward))
    written = len(read_samples(tmp_path))
    assert written == 2 * 6
    assert len(run(engine, tmp_path, reward)) == 48
    assert (
        len(graded) == 24 + 12 - written
    )  # 36 completions, of which 12 without limits count for both methods
    run(engine, tmp_path, reward)
    assert len(graded) == 24


def test_the_command_killed_by_another_process_goes_on(tmp_path, capsys) -> None:
    def command(out: Path) -> int:
        fixed = "eval tiny --data tiny --count 16 --methods separate --budgets 6:8,none --temperature 1"
        return cli.main([*fixed.split(), "--chunk-rows", "4", "--max-rows", "4", "--out", str(out)])

    assert command(tmp_path / "whole") == 0
    path = tmp_path / "killed/samples.jsonl"
    for size in (1, 3000):
        child = forked(lambda: command(tmp_path / "killed"))
        limit = time.monotonic() + 120
        while not path.exists() or path.stat().st_size < size:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
            assert time.monotonic() < limit or os.kill(child, signal.SIGKILL), "it hangs"
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert command(tmp_path / "killed") == 0
    assert path.read_bytes() == (tmp_path / "whole/samples.jsonl").read_bytes()
    assert "going on with" in capsys.readouterr().err
