"""Closed, full and odd output streams, of real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATE = (
    f"{sys.executable} -m elastic generate tiny --raw --prompt '<bos> a 3 b + 4 = ? <think>' "
    "--thinking 8 --solution 4 --seed 1 --samples"
)
INFO = f"{sys.executable} -m elastic info"
CLOSED = "elastic: error: stdout is closed; use > /dev/null for no output\n"
SIGPIPE = 128 + 13  # as if the signal had ended it


def shell(command: str, **environment: str) -> tuple[int, str, str]:
    """Status of the first command of a pipe, and what came out."""
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [f"{GENERATE} 200", f"{GENERATE} 200 --stream"])
def test_a_reader_that_has_enough_ends_generate_without_a_word(command: str) -> None:
    status, out, err = shell(f"{command} | head -1")
    assert status == SIGPIPE
    assert out.startswith("=== prompt 1 of 1, sample 1 of 200")
    assert [line for line in err.splitlines() if not line.startswith("elastic: tiny: ")] == []


def test_a_reader_that_has_enough_has_the_json_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert shell(f"{GENERATE} 200 --json {path} | head -1")[0] == SIGPIPE
    assert len(json.loads(path.read_text())) == 200


@pytest.mark.parametrize("command", [f"{GENERATE} 1", f"{GENERATE} 1 --stream", INFO, f"{INFO} --help"])
def test_a_closed_stdout_is_refused_before_any_work(command: str) -> None:
    assert shell(f"{command} >&-") == (2, "", CLOSED)


def test_a_closed_stderr_takes_nothing_and_changes_nothing() -> None:
    expected = shell(f"{GENERATE} 1 2>/dev/null")
    assert shell(f"{GENERATE} 1 2>&-") == expected
    assert expected[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [f"{GENERATE} 1 --stream", INFO])
def test_a_full_disk_is_one_line(command: str) -> None:
    status, _, err = shell(f"{command} >/dev/full")
    assert status == 2
    assert err.splitlines()[-1] == "elastic: error: [Errno 28] No space left on device"
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_characters_that_a_terminal_has_not_are_escaped() -> None:
    status, out, _ = shell(f"{GENERATE.replace('<bos>', 'π')} 1", PYTHONIOENCODING="ascii")
    assert status == 0
    assert r"\u03c0 a 3 b + 4 = ?" in out


def test_arguments_that_are_no_text_are_refused() -> None:
    status, _, err = shell(f"{sys.executable} -m elastic generate tiny --prompt $'\\xff'")
    assert status == 2
    assert err == "elastic: error: argument --prompt: expected UTF-8 text; see elastic generate --help\n"
