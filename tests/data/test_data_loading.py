"""Data files: what they may look like, and what is said when they do not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from elastic.data import Problem, load, load_prompts

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
    assert load(path) == [Problem("1 + 1?", "2", "data-0", "data"), Problem("2 + 2?", "4", "data-1", "data")]


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        ({"answer": " 7 "}, "7"),
        ({"answer": 142.0}, "142"),
        ({"answer": 0.5}, "0.5"),
        ({"answer": None, "solution": "6 * 3 = 18\n#### 18"}, "18"),
        ({"solution": "no, #### 3\nbut\n#### 1,024 "}, "1,024"),
        ({"answer": "Reasoning as published.\n#### 42"}, "42"),
        ({"answer": '["a", ' + "[" * 100_000}, '["a", ' + "[" * 100_000),
    ],
)
def test_answer_is_read_as_it_is_published(tmp_path, item, answer):
    path = write(tmp_path / "data.json", [{"problem": "?"} | item])
    assert load(path)[0].answer == answer


def test_ids_of_the_file_are_kept(tmp_path):
    items = [{"problem": "?", "answer": "1", "unique_id": "a/b"}, {"problem": "?", "answer": "1", "id": 5}]
    assert [p.id for p in load(write(tmp_path / "data.json", items))] == ["a/b", "5"]


def test_line_separator_inside_a_string_does_not_split_a_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"problem": "a\u2028b", "answer": "1"}\n\n', encoding="utf-8")
    assert [p.prompt for p in load(path)] == ["a\u2028b"]


def test_count_takes_the_first_ones(tmp_path):
    path = write(tmp_path / "data.json", [{"problem": str(n), "answer": "1"} for n in range(5)])
    assert [p.prompt for p in load(path, count=2)] == ["0", "1"]
    with pytest.raises(ValueError, match=r"count is 6, but .*data.json holds 5 problems"):
        load(path, count=6)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        load(path, count=0)


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
            ['{"problem": "?", "answer": {"value": 1}}'],
            r"line 1, field 'answer': expected text or a number, got {'value': 1}",
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
        load(path)


def test_json_errors_name_the_item_or_the_position(tmp_path):
    path = write(tmp_path / "data.json", [{"problem": "?", "answer": "1"}, {"problem": "?"}])
    with pytest.raises(ValueError, match=r"data.json, item 1, field 'answer'"):
        load(path)
    path.write_text('{"problem": 1}')
    with pytest.raises(ValueError, match=r"data.json: expected a list of objects, got dict"):
        load(path)
    path.write_text('[{"a": 1},\n oops]')
    with pytest.raises(ValueError, match=r"data.json: not JSON: .*line 2, column 2"):
        load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"data.json: not UTF-8"):
        load(path)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("0.00001", "0.00001"),
        ("1e-05", "0.00001"),
        ("-2.50", "-2.5"),
        ("1E3", "1000"),
        ("142.0", "142"),
        ("100", "100"),
        ("-0.0", "0"),
        ("12345678901234567890", "12345678901234567890"),
        ("0.1234567890123456789", "0.1234567890123456789"),
    ],
)
def test_numbers_become_plain_decimals_as_they_are_written(tmp_path, number, answer):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {number}}}')
    assert load(path)[0].answer == answer


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e1001", "1e-999999999"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {number}}}')
    with pytest.raises(
        ValueError, match=r"data.jsonl, line 1, field 'answer': expected a finite number, got "
    ):
        load(path)


@pytest.mark.parametrize(
    ("answers", "answer"), [('["7"]', "7"), ("[0.5]", "0.5"), (r'["a\n#### 18"]', "18"), ("[12]", "12")]
)
def test_a_list_of_one_answer_is_the_answer(tmp_path, answers, answer):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {answers}}}')
    assert load(path)[0].answer == answer


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ('["1", "2"]', r"expected one answer, got a list of 2: write '1, 2' where all of them together"),
        ("[]", "expected one answer, got a list of 0"),
        ('[["1"]]', r"expected text or a number, got \['1'\]"),
        ("[null]", "expected text or a number, got None"),
        ('[{"value": 0.5}]', r"expected text or a number, got {'value': 0.5}"),
    ],
)
def test_several_answers_are_refused_with_what_to_write_instead(tmp_path, answers, message):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {answers}}}')
    with pytest.raises(ValueError, match=r"data.jsonl, line 1, field 'answer': " + message):
        load(path)


@pytest.mark.parametrize("ids", [("a", "a"), (5, "5"), ("data-1", None), (None, "data-0")])
def test_an_id_that_names_two_problems_is_refused(tmp_path, ids):
    path = write(tmp_path / "data.jsonl", [{"problem": "?", "answer": "1", "id": name} for name in ids])
    with pytest.raises(
        ValueError, match=r"data.jsonl, line 2: the id '.*' is that of .*data.jsonl, line 1 too"
    ):
        load(path)


@pytest.mark.parametrize("name", [["a"], {"a": 1}, True])
def test_an_id_is_text_or_a_number(tmp_path, name):
    path = write(tmp_path / "data.jsonl", [{"problem": "?", "answer": "1", "unique_id": name}])
    with pytest.raises(ValueError, match="line 1, field 'unique_id': expected text or a number, got "):
        load(path)


def test_an_empty_id_is_none(tmp_path):
    path = write(tmp_path / "data.jsonl", [{"problem": "?", "answer": "1", "id": ""} for _ in range(2)])
    assert [problem.id for problem in load(path)] == ["data-0", "data-1"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, suffix):
    path = write(tmp_path / f"data{suffix}", [{"problem": "?", "answer": "1"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path) == [Problem("?", "1", "data-0", "data")]


def test_files_put_together_may_keep_their_byte_order_marks(tmp_path):
    part = b'\xef\xbb\xbf{"problem": "?", "answer": "1"}\r\n'
    path = tmp_path / "data.jsonl"
    path.write_bytes(part + part + b"\xef\xbb\xbf\n")
    assert [problem.id for problem in load(path)] == ["data-0", "data-1"]


@pytest.mark.parametrize("answer", ["9" * 5000, "[" * 100_000])
def test_json_that_python_cannot_read_names_its_line(tmp_path, answer):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"problem": "?", "answer": "1"}}\n{{"problem": "?", "answer": {answer}}}')
    with pytest.raises(ValueError, match=r"data.jsonl, line 2: (cannot be read|not JSON)"):
        load(path)


def test_prompts_need_no_answers(tmp_path):
    path = write(tmp_path / "data.jsonl", [{"problem": "1?"}, {"prompt": "2?", "answer": [1, 2], "id": []}])
    assert load_prompts(path) == ["1?", "2?"]
    with pytest.raises(ValueError, match="line 1, field 'answer': is null or absent"):
        load(path)
    path.write_text('{"problem": "1?"}\n{"problem": ""}')
    with pytest.raises(ValueError, match=r"data.jsonl, line 2, field 'problem': expected non-empty text"):
        load_prompts(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"data.jsonl: holds no problem"):
        load_prompts(path)


def test_missing_file_says_what_sets_there_are(tmp_path):
    known = r"'tinny' is neither a file .* did you mean tiny\? \(known: tiny, .*deepscaler, .*math500, "
    with pytest.raises(FileNotFoundError, match=known):
        load("tinny")
    with pytest.raises(FileNotFoundError, match=r"'data/train.jsonl' is neither a file"):
        load("data/train.jsonl")  # a missing file, no name on the hub
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(ValueError, match=r"end in .json, .jsonl, .parquet, got '.csv'"):
        load(tmp_path / "data.csv")


def test_tiny_is_a_set_with_three_splits():
    train = load("tiny", count=5, seed=1)
    assert train == load("tiny", count=5, seed=1)
    prompts = {problem.prompt for problem in train}
    for split in ("validation", "test"):
        others = load("tiny", count=5, seed=1, split=split)
        assert not prompts & {problem.prompt for problem in others}
    with pytest.raises(ValueError, match="the generated set 'tiny' needs count"):
        load("tiny")


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
    problems = load(SHARED / f"{name}.json")
    assert len(problems) == count
    assert problems[0].answer == first
    assert max(Counter(problem.id for problem in problems).values()) == 1
