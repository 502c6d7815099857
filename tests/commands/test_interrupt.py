"""Ctrl-C on `elastic generate --stream`, as a signal to a real process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elastic.budget import Phase
from elastic.commands.interrupt import ThoughtInterrupt
from elastic.models import tiny

ROOT = Path(__file__).parents[2]
PROMPT = "<bos> a 3 b + 4 c - 9 = ? <think>"
# A thought of hours: every end of it is taken back.
ENDLESS = ("--min-thinking", "90000", "--max-extensions", "60000", "--extension", "so")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """The embedded model with room for 100,000 tokens, and nothing that ends a row."""
    folder = tmp_path / "model"
    shutil.copytree(tiny.CHECKPOINT, folder)
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        content.pop("eos_token", None)
        content.pop("eos_token_id", None)
        if file == "config.json":
            content |= {"max_position_embeddings": 100_000, "eos_token_id": None}
        (folder / file).write_text(json.dumps(content))
    return folder


class Streaming:
    """A streaming process that is interrupted once it has shown some text."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "elastic",
            "generate",
            str(folder),
            "--raw",
            "--stream",
            "--seed",
            "1",
        ]
        self.process = subprocess.Popen(
            [*command, "--seed", "1", "--prompt", PROMPT, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interrupt of the tests is not one of theirs
        )
        self.shown = b""

    def interrupt_after(self, text: bytes, more: int = 40) -> None:
        assert self.process.stdout is not None
        while text not in self.shown or len(self.shown.split(text, 1)[1]) < more:
            byte = self.process.stdout.read(1)
            assert byte, self.process.communicate()[1].decode()
            self.shown += byte
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, (self.shown + out).decode(), err.decode()


def test_the_first_ctrl_c_ends_the_thought_and_the_completion_answers(endless: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    arguments = (*ENDLESS, "--solution", "5", "--closing", "{end} answer is", "--json", str(path))
    streaming = Streaming(endless, *arguments)
    streaming.interrupt_after(b"[thinking]")
    status, out, err = streaming.end()
    assert status == 0, err
    # It may have come while an extension was being forced.
    assert re.search(r"\n\[forced\] (so )*</think> answer is\n\[solution\] ", out), out
    assert " thinking tokens (cut), 5 solution tokens, ended by solution_budget" in out
    (row,) = json.loads(path.read_text())
    assert row["thinking_cut"]
    assert row["thinking_tokens"] < 90_000
    assert row["solution_tokens"] == 5


def test_a_second_ctrl_c_ends_the_program(endless: Path) -> None:
    streaming = Streaming(endless, *ENDLESS)
    streaming.interrupt_after(b"[thinking]")
    streaming.interrupt_after(b"[solution]")
    status, out, err = streaming.end()
    assert status == 130
    assert re.search(r"\[forced\] (so )*</think>\n\[solution\] ", out), out
    assert err.splitlines()[-1] == "elastic: interrupted"


def test_ctrl_c_while_nothing_is_thought_ends_the_program(endless: Path) -> None:
    streaming = Streaming(endless, "--phase", "solution")
    streaming.interrupt_after(b"[solution]")
    status, _, err = streaming.end()
    assert status == 130
    assert err.splitlines()[-1] == "elastic: interrupted"


def test_every_thought_can_be_ended_and_the_handler_of_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ThoughtInterrupt() as interrupt:
        for _ in range(2):
            interrupt.begin()
            assert interrupt.token(Phase.THINKING) is None
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.token(Phase.THINKING) == "end_thinking"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("phase", [None, Phase.OPENING, Phase.CLOSING, Phase.SOLUTION])
def test_outside_of_thinking_an_interrupt_is_one(phase: Phase | None) -> None:
    with ThoughtInterrupt() as interrupt:
        interrupt.begin()
        if phase is not None:
            interrupt.token(phase)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
