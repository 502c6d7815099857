"""Data files: what they may look like, and what is said when they do not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from elastic.data import Problem, load_problems

SHARED = Path(__file__).parents[3] / "shared" / "data" / "math"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is absent")


def write(path, items):
    if path.suffix == ".json":
        path.write_text(json.dumps(items))
    else:
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("field", ["problem", "prompt", "question"])
def test_problem_is_found_under_any_of_its_names(tmp_path, suffix, field):
    path = write(
        tmp_path / f"data{suffix}", [{field: "1 + 1?", "answer": "2"}, {field: "2 + 2?", "answer": 4}]
    )
    assert load_problems(path) == [Problem("1 + 1?", "2", "data-0"), Problem("2 + 2?", "4", "data-1")]


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        ({"answer": " 7 "}, "7"),
        ({"answer": 142.0}, "142"),
        ({"answer": 0.5}, "0.5"),
        ({"answer": None, "solution": "6 * 3 = 18\n#### 18"}, "18"),
        ({"solution": "no, #### 3\nbut\n#### 1,024 "}, "1,024"),
        ({"answer": "Reasoning as published.\n#### 42"}, "42"),
    ],
)
def test_answer_is_read_as_it_is_published(tmp_path, item, answer):
    path = write(tmp_path / "data.json", [{"problem": "?"} | item])
    assert load_problems(path)[0].answer == answer


def test_ids_of_the_file_are_kept(tmp_path):
    items = [{"problem": "?", "answer": "1", "unique_id": "a/b"}, {"problem": "?", "answer": "1", "id": 5}]
    assert [p.id for p in load_problems(write(tmp_path / "data.json", items))] == ["a/b", "5"]


def test_line_separator_inside_a_string_does_not_split_a_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"problem": "a\u2028b", "answer": "1"}\n\n', encoding="utf-8")
    assert [p.prompt for p in load_problems(path)] == ["a\u2028b"]


def test_count_takes_the_first_ones(tmp_path):
    path = write(tmp_path / "data.json", [{"problem": str(n), "answer": "1"} for n in range(5)])
    assert [p.prompt for p in load_problems(path, count=2)] == ["0", "1"]
    with pytest.raises(ValueError, match=r"count is 6, but .*data.json holds 5 problems"):
        load_problems(path, count=6)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        load_problems(path, count=0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"problem": "?", "answer": "1"}', "{"], r"data.jsonl, line 2: not JSON"),
        (["3"], r"data.jsonl, line 1: expected an object, got int"),
        (['{"answer": "1"}'], r"line 1: needs exactly one of the fields problem, prompt, question, has only"),
        (['{"problem": "a", "prompt": "b", "answer": "1"}'], r"line 1: .* has problem and prompt"),
        (['{"problem": "  ", "answer": "1"}'], r"line 1, field 'problem': expected non-empty text"),
        (['{"problem": 3, "answer": "1"}'], r"line 1, field 'problem': expected non-empty text, got 3"),
        (['{"problem": "?"}'], r"line 1, field 'answer': is null or absent"),
        (['{"problem": "?", "answer": ""}'], r"line 1, field 'answer': is empty"),
        (
            ['{"problem": "?", "answer": [1]}'],
            r"line 1, field 'answer': expected text or a number, got \[1\]",
        ),
        (
            ['{"problem": "?", "answer": true}'],
            r"line 1, field 'answer': expected text or a number, got True",
        ),
        (["", ""], r"data.jsonl: holds no problem"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, lines, message):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        load_problems(path)


def test_json_errors_name_the_item_or_the_position(tmp_path):
    path = write(tmp_path / "data.json", [{"problem": "?", "answer": "1"}, {"problem": "?"}])
    with pytest.raises(ValueError, match=r"data.json, item 1, field 'answer'"):
        load_problems(path)
    path.write_text('{"problem": 1}')
    with pytest.raises(ValueError, match=r"data.json: expected a list of objects, got dict"):
        load_problems(path)
    path.write_text('[{"a": 1},\n oops]')
    with pytest.raises(ValueError, match=r"data.json: not JSON: .*line 2, column 2"):
        load_problems(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"data.json: not UTF-8"):
        load_problems(path)


def test_missing_file_says_what_sets_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'tinny' is neither a file nor one of the sets \['tiny'\]"):
        load_problems("tinny")
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(ValueError, match=r"end in .json or .jsonl, got '.csv'"):
        load_problems(tmp_path / "data.csv")


def test_tiny_is_a_set_with_three_splits():
    train = load_problems("tiny", count=5, seed=1)
    assert train == load_problems("tiny", count=5, seed=1)
    prompts = {problem.prompt for problem in train}
    for split in ("validation", "test"):
        others = load_problems("tiny", count=5, seed=1, split=split)
        assert not prompts & {problem.prompt for problem in others}
    with pytest.raises(ValueError, match="the generated set 'tiny' needs count"):
        load_problems("tiny")


@needs_shared
@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("aime", 30, "204"),
        ("aime_train", 975, "60"),
        ("amc", 83, "142"),
        ("gsm8k", 1319, "18"),
        ("math", 500, r"\left( 3, \frac{\pi}{2} \right)"),
    ],
)
def test_real_benchmark_files_load(name, count, first):
    problems = load_problems(SHARED / f"{name}.json")
    assert len(problems) == count
    assert problems[0].answer == first
    assert max(Counter(problem.id for problem in problems).values()) == 1
