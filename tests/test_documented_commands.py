"""Every command that README, CONTRIBUTING and docs/ show exists and takes the arguments shown."""

import argparse
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest

from elastic import cli

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
PROGRAMS = ("make", "elastic", "python", "pytest", "pip", "pre-commit")
NO_COMMAND = re.compile(r"[→|]|<-|^\S+$")  # drawings, and names of programs alone


def words_of(line: str) -> list[str]:
    """A command without its comment and the variables set before it."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    return [Path(words[0]).name, *words[1:]] if words else []


def commands() -> list[tuple[str, bool]]:
    """Each command, and whether it is one to type; in running text `elastic generate` may be a name."""
    found = []
    for page in PAGES:
        text = page.read_text()
        found += [(line, True) for block in BLOCK.findall(text) for line in block.splitlines()]
        inline = [code for code in INLINE.findall(BLOCK.sub("", text)) if not NO_COMMAND.search(code)]
        found += [(code, len(words_or_none(code) or []) > (3 if " -m " in code else 2)) for code in inline]
    known = [pair for pair in found if (words := words_or_none(pair[0])) and words[0] in PROGRAMS]
    return list(dict.fromkeys(known))


def words_or_none(line: str) -> list[str] | None:
    try:
        return words_of(line)
    except ValueError:  # prose with an apostrophe
        return None


class ParsedError(Exception):
    """Stops a program once it has taken its arguments."""


@pytest.fixture
def parsing(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@contextmanager
def stopped_with_its_arguments(complete: bool):
    """The program gets as far as having its arguments; one that is only named may ask for those it needs."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except ParsedError:
        return
    except SystemExit:
        assert not complete, said.getvalue()
        assert "the following arguments are required" in said.getvalue()
        return
    raise AssertionError("it ended without looking at its arguments")  # a module that is no command


def check_python(words: list[str], monkeypatch, complete: bool = True) -> None:
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), f"no file {words[0]}"
        return
    if words[1] == "pytest":
        check_paths(words[2:])
        return
    monkeypatch.setattr(sys, "argv", [words[1], *words[2:]])
    monkeypatch.delitem(sys.modules, words[1], raising=False)  # run anew, as it would be
    with stopped_with_its_arguments(complete):
        runpy.run_module(words[1], run_name="__main__", alter_sys=False)


def check_paths(words: list[str]) -> None:
    assert all((ROOT / word.split("::")[0]).exists() for word in words if "/" in word or word == "bench")


def check_make(words: list[str], monkeypatch) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        assert "=" not in word or f"$({word.split('=')[0]})" in makefile, f"the Makefile has no {word}"
    for line in done.stdout.splitlines():
        program, *words = words_or_none(line) or [""]
        if program.startswith("python") and words[0] == "-m" and words[1] not in ("venv", "pip"):
            check_python(words, monkeypatch)


@pytest.mark.parametrize(("line", "complete"), commands())
def test_a_documented_command_exists_and_takes_its_arguments(line, complete, parsing, monkeypatch):
    program, *words = words_of(line)
    if program == "make":
        check_make(words, monkeypatch)
    elif program == "elastic":
        with stopped_with_its_arguments(complete):
            cli.main(words)
    elif program == "python":
        check_python(words, monkeypatch, complete)
    elif program == "pytest":
        check_paths(words)
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert set(re.findall(r"\[(\w+)\]", line)) <= set(extras)
    else:
        assert (ROOT / ".pre-commit-config.yaml").exists()


def test_commands_are_found_on_the_pages():
    found = [line for line, _ in commands()]
    for line in ("make demo", "elastic info"):
        assert line in [command.split("  ")[0] for command in found]
    assert sum(line.startswith(("python -m", ".venv/bin/python -m")) for line in found) >= 4


@pytest.mark.parametrize(
    ("words", "complete", "fault"),
    [
        (["-m", "bench.rollout", "--sise", "tiny"], True, "unrecognized arguments: --sise"),
        (["-m", "bench.rollout", "--sise"], False, "required"),  # named with what it does not take
        (["-m", "bench.inputs"], False, "without looking at its arguments"),
    ],
)
def test_a_command_that_would_not_run_is_seen(parsing, monkeypatch, words, complete, fault):
    with pytest.raises(AssertionError, match=fault):
        check_python(words, monkeypatch, complete)
