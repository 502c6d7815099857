"""Completions on the console: a table as wide as the terminal."""

import math

import pytest

from elastic.train.run.completions import columns, completions_table
from tests.train.tiny_run import build_config, run


def record(**changes):
    return {
        "step": 7,
        "reward": 0.5,
        "prompt": "What is 2 + 2 ? <think>",
        "thinking": "two and two",
        "solution": "is four",
        "thinking_tokens": 3,
        "solution_tokens": 2,
        "thinking_cut": False,
        "finish_reason": "stop",
    } | changes


def test_table_has_one_line_a_completion():
    found = completions_table([record(), record(thinking_cut=True, reward=math.nan, thinking_tokens=11)], 120)
    assert found.splitlines() == [
        "completions of step 7",
        "reward  think  solve   end  prompt" + " " * 24 + "  completion",
        " 0.500      3      2  stop  What is 2 + 2 ? <think>" + " " * 7 + "  two and two / is four",
        "  none     11      2  stop  What is 2 + 2 ? <think>" + " " * 7 + "  two and two [cut] is four",
    ]


def test_long_texts_keep_the_prompts_tail_and_head_and_tail_of_both_parts():
    long = record(
        prompt="a" * 500 + "END",
        thinking="H" + "x" * 500 + "T",
        solution="h" + "y" * 500 + "t",
        thinking_cut=True,
    )
    line = completions_table([long], 100).splitlines()[2]
    assert columns(line) == 100
    _, prompt, completion = line.rsplit("  ", 2)
    assert prompt.startswith("...a")
    assert prompt.endswith("aEND")
    thinking, solution = completion.split(" [cut] ")
    assert thinking[:2] + thinking[-2:] == "HxxT"
    assert solution[:2] + solution[-2:] == "hyyt"
    assert "x...x" in thinking
    assert "y...y" in solution


def test_short_thought_leaves_its_room_to_the_solution():
    line = completions_table([record(thinking="hm", solution="s" * 300)], 100).splitlines()[2]
    assert columns(line) == 100
    assert "hm / sss" in line


@pytest.mark.parametrize("width", [20, 80, 81, 133])
def test_wide_characters_take_two_columns_and_combining_ones_none(width):
    wide = record(prompt="問題" * 90, thinking="思考" * 90, solution="e\u0301" * 200)
    lines = completions_table([wide, record()], width).splitlines()[1:]
    assert all(columns(line) <= max(width, 66) for line in lines)
    starts = [
        columns(line[: line.index(mark)])
        for line, mark in zip(lines, ["completion", "思", "two"], strict=True)
    ]
    assert len(set(starts)) == 1, "the last column begins at one place"
    assert columns("e\u0301") == 1
    assert columns("問") == 2


def test_line_breaks_and_control_characters_cannot_move_the_cursor():
    found = completions_table([record(thinking="a\n\n b\tc\x1b[31mred\x07", solution="")], 120)
    assert "a b c\\x1b[31mred\\x07 / " in found + " "
    assert "\x1b" not in found


def test_run_prints_the_table_where_samples_are_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    logging = {"console_every": 1, "samples_every": 3, "samples": 2}
    run(build_config(tmp_path / "table", logging=logging))
    err = capsys.readouterr().err.splitlines()
    at = err.index("completions of step 3")
    assert err[at + 1].split() == ["reward", "think", "solve", "end", "prompt", "completion"]
    assert all(" [cut] " in line and "solution_budget" in line for line in err[at + 2 : at + 4])
    assert all(columns(line) <= 100 for line in err[at : at + 4])
    run(build_config(tmp_path / "none", logging=logging | {"samples_table": False}))
    assert "completions of" not in capsys.readouterr().err
