"""SIGTERM and Ctrl-C in every phase of a step: the run ends, and goes on as if nothing had been."""

import os
import signal

import pytest
import torch

from elastic.rollout import RolloutEngine
from elastic.train.collect.evaluation import Evaluation
from elastic.train.run import directories
from elastic.train.run.checkpoint import checkpoint_paths
from elastic.train.run.metrics import MetricsLog
from elastic.train.run.termination import Termination
from elastic.train.run.weights import Weights
from tests.train.faults.runs import assert_same, fresh, train


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    train(output)
    return output


@pytest.fixture(autouse=True)
def interruptible():
    """A shell's background job ignores SIGINT, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


def sending(monkeypatch, owner, name, call, *numbers):
    """The n-th call of a function, or the first that is about a file of that name, gets the signals then."""
    original, calls, done = getattr(owner, name), [], []

    def instead(*arguments, **options):
        found = original(*arguments, **options)
        calls.append(1)
        about = isinstance(call, str) and call in str(arguments) and call not in done
        if len(calls) == call or about:
            done.append(call)
            for number in numbers:
                signal.raise_signal(number)
        return found

    monkeypatch.setattr(owner, name, instead)


# What is called in step 3 or 4, and the step whose state is saved on SIGTERM and on SIGINT.
PHASES = {
    "rollouts": (RolloutEngine, "generate", 4, 2, 2),
    "backward": (torch.Tensor, "backward", 5, 2, 2),
    "update": (torch.optim.AdamW, "step", 5, 3, 2),
    "metrics": (MetricsLog, "step", 3, 3, 2),
    "evaluation": (Evaluation, "run", 2, 3, 3),
    "weights": (Weights, "write", "step-00000004", 4, 4),
    "renaming": (os, "rename", "step-00000004", 4, 4),
    "final": (Weights, "write_final", "unfinished-final", 6, 6),
}


@pytest.mark.parametrize(
    ("number", "phase"),
    [(signal.SIGTERM, phase) for phase in PHASES]
    + [(signal.SIGINT, phase) for phase in ("update", "metrics", "renaming")],
)
def test_signal_in_any_phase_keeps_what_is_done(tmp_path, monkeypatch, uninterrupted, phase, number):
    owner, name, call, terminated, interrupted = PHASES[phase]
    error = {signal.SIGTERM: SystemExit, signal.SIGINT: KeyboardInterrupt}[number]
    with monkeypatch.context() as patched:
        sending(patched, owner, name, call, number)
        with pytest.raises(error):
            train(tmp_path)
    step = terminated if number == signal.SIGTERM else interrupted
    assert [int(path.name[-8:]) for path in checkpoint_paths(tmp_path)][-1] == step
    train(tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_second_sigterm_does_not_end_the_writing_of_the_checkpoint(tmp_path, monkeypatch, uninterrupted):
    with monkeypatch.context() as patched:
        sending(patched, RolloutEngine, "generate", 5, signal.SIGTERM)  # of step 4
        sending(patched, directories, "sync", 25, *[signal.SIGTERM] * 2)
        with pytest.raises(SystemExit) as caught:
            train(tmp_path)
    assert caught.value.code == 143
    assert [path.name for path in checkpoint_paths(tmp_path)] == ["step-00000003"]
    train(tmp_path)
    assert_same(tmp_path, uninterrupted)


def test_handler_of_the_program_stays(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        train(tmp_path, callbacks=[lambda now, _: now.step == 2 and signal.raise_signal(signal.SIGTERM)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]
    fresh(tmp_path / "other")


def test_sigterm_while_a_block_ends_with_a_state_not_to_go_on_from_is_not_lost():
    """As `Trainer.replay` ends."""

    def replay():
        termination = Termination()
        with termination:
            termination.hold()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        replay()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
