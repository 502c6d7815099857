"""Markers, natural ends and starts that are given on the command line, or by a key of a training's file."""

import json
import re
import shutil
from pathlib import Path

import pytest

from elastic.budget import Phase
from elastic.models import tiny

# The embedded model begins a sentence with "we" after some steps of every thought.
QUESTION = "a 3 b + 4 c - 9 d + 2 e + 5 f - 1 g + 8 = ?"
OPENED = f"<bos> {QUESTION} <think>"
CLOSED = f"<bos> {QUESTION}"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The embedded model with the markers of another family, [THINK] and [/THINK]."""
    folder = tmp_path / "other"
    shutil.copytree(tiny.CHECKPOINT, folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace("</think>", "[/THINK]").replace("<think>", "[THINK]"))
    return folder


def generate(elastic, model, prompt: str, *arguments: object, status: int = 0):
    outcome = elastic("generate", model, "--raw", "--prompt", prompt, "--seed", 3, *arguments)
    assert outcome.status == status, outcome.err
    return outcome


def kinds(out: str) -> list[str]:
    return re.findall(r"^\[(\w+)\]", out, re.MULTILINE)


def test_other_markers_are_those_that_are_given(elastic, other: Path) -> None:
    arguments = ("--thinking", 6, "--solution", 8, "--seed", 3)
    expected = elastic("generate", "tiny", "--prompt", QUESTION, *arguments)
    given = elastic(
        *("generate", other, "--prompt", QUESTION, "--start-marker", "[THINK]", "--end-marker", "[/THINK]"),
        *arguments,
    )
    assert "[forced] [/THINK]\n" in given.out
    assert given.out.replace("[/THINK]", "</think>") == expected.out
    assert "warning" not in given.err


def test_without_flags_the_vocabularys_markers_are_taken_and_named(elastic, other: Path) -> None:
    outcome = elastic("generate", other, "--prompt", QUESTION, "--thinking", 6, "--solution", 8)
    assert "[forced] [/THINK]\n" in outcome.out
    (line,) = [line for line in outcome.err.splitlines() if "warning" in line]
    assert "[THINK] and [/THINK]" in line
    assert line.endswith("give --start-marker and --end-marker")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--start-marker", "<quux>"), "--start-marker: '<quux>'"),
        (("--end-marker", "</quux>"), "--end-marker: '</quux>'"),
        (("--end", "<quux>"), "--end: '<quux>'"),
    ],
)
def test_a_marker_that_the_vocabulary_has_not_is_named_by_its_flag(elastic, arguments, named) -> None:
    outcome = generate(elastic, "tiny", OPENED, "--thinking", 6, *arguments, status=2)
    assert outcome.err.splitlines()[-1].startswith(f"elastic: error: {named}")


def test_another_end_ends_a_thought_and_belongs_to_the_solution(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    arguments = ("--end", "we", "--solution", 8, "--samples", 6, "--json", path)
    outcome = generate(elastic, "tiny", OPENED, *arguments)
    rows = json.loads(path.read_text())
    assert all(row["solution"].startswith("we ") for row in rows if "we" in row["text"].split())
    assert any("we" in row["text"].split() for row in rows)
    assert not any("we" in row["thinking"].split() for row in rows)
    assert "forced" not in kinds(outcome.out)


def test_where_a_completion_starts_can_be_said(elastic) -> None:
    limits = ("--thinking", 4, "--solution", 6)
    assert kinds(generate(elastic, "tiny", OPENED, *limits).out) == ["thinking", "forced", "solution"]
    said = generate(elastic, "tiny", CLOSED, *limits, "--phase", "thinking")
    assert kinds(said.out) == ["thinking", "forced", "solution"]
    said = generate(elastic, "tiny", OPENED, "--solution", 6, "--phase", "solution")
    assert kinds(said.out) == ["solution"]


def test_thinking_of_the_prompt_counts(elastic, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    limits = ("--thinking", 6, "--solution", 6, "--thinking-used", 4)
    generate(elastic, "tiny", OPENED, *limits, "--json", path)
    (row,) = json.loads(path.read_text())
    assert row["phase"].count(int(Phase.THINKING)) == 2
    outcome = generate(elastic, "tiny", OPENED, *limits, "--phase", "opening", status=2)
    assert "pass --phase thinking if the prompt ends inside a thought" in outcome.err


def test_a_prompt_inside_a_thought_is_pointed_out_with_the_flags(elastic) -> None:
    outcome = generate(elastic, "tiny", f"{OPENED} b 3", "--thinking", 4, "--solution", 6)
    (line,) = [line for line in outcome.err.splitlines() if "inside a thought" in line]
    assert "1 of 1 (first: prompt 1)" in line
    assert "Pass --phase thinking if they end inside a thought (and --thinking-used for" in line


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_budgets_that_never_come_to_a_thought_are_pointed_out_with_the_flags(elastic, stream) -> None:
    arguments = ("--thinking", 4, "--solution", 6, "--samples", 3, *stream)
    outcome = generate(elastic, "tiny", CLOSED, *arguments)
    (line,) = [line for line in outcome.err.splitlines() if "warning" in line]
    assert line.startswith("elastic: warning: prompts: 1 of 1 (first: prompt 1) do not open thinking")
    assert "or give --start-marker and --end-marker" in line


def test_streaming_finds_a_mistake_in_the_last_prompt_before_it_shows_the_first(elastic) -> None:
    outcome = generate(elastic, "tiny", OPENED, "--prompt", "", "--stream", "--thinking", 4, status=2)
    assert outcome.out == ""
    assert "prompt 2 is empty" in outcome.err


def test_streaming_writes_the_records_of_generating_at_once(elastic, tmp_path: Path) -> None:
    records = []
    for stream in ((), ("--stream",)):
        path = tmp_path / "out.json"
        arguments = ("--prompt", OPENED, "--samples", 2, "--thinking", 4, "--solution", 6, "--json", path)
        generate(elastic, "tiny", OPENED, *arguments, *stream)
        records.append(json.loads(path.read_text()))
    for row in (*records[0], *records[1]):
        del row["logprobs"], row["full_logprobs"]  # matrix products of other sizes
    assert records[0] == records[1]
    assert [row["prompt_index"] for row in records[1]] == [0, 0, 1, 1]


# A training's file


TOML = """
[model]
path = "{model}"
{markers}
[data]
source = "tiny"
count = 4
[budget]
thinking = 4
solution = 6
{budget}
[rollout]
samples_per_prompt = 2
[train]
output_dir = "{out}"
steps = 1
"""


def train(elastic, tmp_path: Path, model, markers: str = "", budget: str = ""):
    path = tmp_path / "c.toml"
    path.write_text(TOML.format(model=model, markers=markers, budget=budget, out=tmp_path / "run"))
    return elastic("train", path)


def test_a_training_takes_ends_and_the_rest_of_a_budget(elastic, tmp_path: Path) -> None:
    options = 'on_reclose = "forbid"\nwhole_characters = true'
    outcome = train(elastic, tmp_path, "tiny", 'ends = ["we"]', options)
    assert outcome.status == 0, outcome.err
    written = (tmp_path / "run" / "config.toml").read_text()
    assert 'ends = ["we"]' in written
    assert options in written
    assert "start_marker" not in written  # the vocabulary's own


@pytest.mark.parametrize(
    ("markers", "named"),
    [
        ('start_marker = "<quux>"', "model.start_marker: '<quux>'"),
        ('end_marker = "</quux>"', "model.end_marker: '</quux>'"),
        ('ends = ["<quux>"]', "model.ends: '<quux>'"),
    ],
)
def test_a_training_names_the_key_of_a_marker(elastic, tmp_path: Path, markers: str, named: str) -> None:
    outcome = train(elastic, tmp_path, "tiny", markers)
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith(f"elastic: error: {named}")


def test_a_training_says_which_markers_it_takes(elastic, tmp_path: Path, other: Path) -> None:
    lines = train(elastic, tmp_path, other).err.splitlines()
    (line,) = [line for line in lines if "[THINK]" in line]
    assert line.endswith("give model.start_marker and model.end_marker")
