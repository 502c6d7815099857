"""What README, CONTRIBUTING and docs/ show is there: commands take their arguments, links lead somewhere."""

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

from elastic.commands import cli

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
    paths = [
        word.split("::")[0].removeprefix("--ignore=") for word in words if "/" in word or word == "bench"
    ]
    assert all((ROOT / path).exists() for path in paths), paths


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
        (["-m", "bench.ops.inputs"], False, "without looking at its arguments"),
    ],
)
def test_a_command_that_would_not_run_is_seen(parsing, monkeypatch, words, complete, fault):
    with pytest.raises(AssertionError, match=fault):
        check_python(words, monkeypatch, complete)


LINK = re.compile(r"\]\(([^)\s]+)\)|href=\"([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.add(next(name for n in range(99) if (name := f"{words}-{n}" if n else words) not in found))
    return found


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there; those to other sites are not followed."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    broken = []
    for link in filter(None, (part for found in LINK.findall(text) for part in found)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link or (target.exists() and (not anchor or anchor in anchors(target))):
            continue
        broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_of_a_page_are_there(page):
    assert broken_links(page) == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title (t = 0)\n## Twice\n## Twice\n```\n# no heading [x](no_link)\n```\n"
        "[a](page.md#a-title-t--0) [b](#twice-1) [c](https://far.away/x#y) `[d](code)`\n"
        "[e](gone.md) [f](#twice-2) ![g](gone.png) [h](page.md#no-heading-x)\n"
    )
    assert broken_links(page) == ["gone.md", "#twice-2", "gone.png", "page.md#no-heading-x"]
