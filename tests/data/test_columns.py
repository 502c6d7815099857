"""Where a row's fields are, what is made of them, and what is left out."""

import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from elastic.data import Filters, Problem, load

CHAT = [{"role": "user", "content": "1 + 1?"}]
SYSTEM = {"role": "system", "content": "Be brief."}
VERL = {"data_source": "x", "prompt": CHAT, "reward_model": {"style": "rule", "ground_truth": "2"}}


def table(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path / "data.parquet")
    return path / "data.parquet"


def lines(path, *rows):
    (path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path / "data.jsonl"


def test_a_parquet_file_in_verls_layout_needs_no_columns(tmp_path):
    assert load(table(tmp_path, [VERL])) == [Problem("1 + 1?", "2", "data-0", "data")]


def test_columns_are_dotted_paths_also_into_texts(tmp_path):
    row = {"input.text": "1?", "extra": json.dumps({"name": "p1", "truth": {"value": "['3']"}})}
    columns = {"prompt": "input.text", "answer": "extra.truth.value", "id": "extra.name"}
    assert load(lines(tmp_path, row), columns=columns) == [Problem("1?", "['3']", "p1", "data")]
    literal = {"q": "1?", "extra": str({"truth": 4})}
    assert load(lines(tmp_path, literal), columns={"prompt": "q", "answer": "extra.truth"})[0].answer == "4"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "text"}, r"data.jsonl, line 1: has no field 'text', it has only \['answer', 'problem'\]"),
        ({"answer": "answer.value"}, r"line 1: has no field 'answer.value', it has only"),
        ({"promt": "text"}, r"columns: unknown key 'promt' \(known: prompt, answer, solution, id, tests, "),
        ({"prompt": ""}, "columns: 'prompt' must be a column's name or dotted path, got ''"),
        ({"prompt": 3}, "columns: 'prompt' must be a column's name or dotted path, got 3"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        load(lines(tmp_path, {"problem": "?", "answer": "1"}), columns=columns)


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path):
    rows = [{"problem": "1?", "answer": 1.5}, {"problem": "", "answer": 2.0}]
    with pytest.raises(ValueError, match=r"data.parquet, row 1, field 'problem': expected non-empty text"):
        load(table(tmp_path, rows))
    rows[1] = {"problem": "2?", "answer": None}
    with pytest.raises(ValueError, match=r"data.parquet, row 1, field 'answer': is null or absent"):
        load(table(tmp_path, rows))


def test_numbers_of_a_parquet_file_are_plain_decimals(tmp_path):
    rows = [{"problem": "?", "answer": value} for value in (142.0, 0.1, 1e-05, -2.5)]
    assert [p.answer for p in load(table(tmp_path, rows))] == ["142", "0.1", "0.00001", "-2.5"]
    with pytest.raises(ValueError, match="row 0, field 'answer': expected a finite number, got NaN"):
        load(table(tmp_path, [{"problem": "?", "answer": float("nan")}]))


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "data.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"data.parquet: not readable as parquet"):
        load(tmp_path / "data.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = table(tmp_path, [VERL])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package pyarrow: pip install 'elastic"):
        load(path)


def test_a_file_has_no_splits(tmp_path):
    with pytest.raises(ValueError, match=r"split is 'test', but the file .*data.jsonl has no splits"):
        load(lines(tmp_path, {"problem": "?", "answer": "1"}), split="test")


def test_a_system_message_is_left_out_and_said(tmp_path):
    path = lines(tmp_path, {"prompt": [SYSTEM, *CHAT], "answer": "2"}, {"prompt": CHAT, "answer": "2"})
    with pytest.warns(UserWarning, match="data 'data': 1 prompts have a system message, which is left out"):
        assert [problem.prompt for problem in load(path)] == ["1 + 1?", "1 + 1?"]


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([SYSTEM], "expected one user message, got the roles system"),
        ([], "expected one user message, got the roles of none"),
        (
            [*CHAT, {"role": "assistant", "content": "2"}],
            "expected one user .* roles user, assistant",
        ),
        ([*CHAT, *CHAT], "expected one user .* roles user, user"),
        (["?"], "expected messages with 'role' and 'content', got '\\?'"),
        ([{"role": "user", "content": " "}], "expected non-empty text, got ' '"),
    ],
)
def test_a_chat_must_be_one_question(tmp_path, chat, message):
    with pytest.raises(ValueError, match=f"line 1, field 'prompt': {message}"):
        load(lines(tmp_path, {"prompt": chat, "answer": "2"}))


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"answer": '["7"]'}, "7"),
        ({"answer": "[7, 8]"}, "[7, 8]"),  # an interval
        ({"answer": '["a", 1)'}, '["a", 1)'),
        ({"reward_model": {"ground_truth": '["\\\\frac{1}{2}"]'}}, r"\frac{1}{2}"),
        ({"solution": r"First $\boxed{1}$, then $\boxed{\frac{3}{\sqrt{4}}}$."}, r"\frac{3}{\sqrt{4}}"),
        ({"solution": r"The set $\boxed{\{1, 2\}}$."}, r"\{1, 2\}"),
        ({"solution": r"$\boxed{5}$ and then cut: $\boxed{6"}, "5"),
        ({"answer": None, "solution": "\\boxed{3}\n#### 18"}, "18"),
    ],
)
def test_answers_in_texts_are_found(tmp_path, row, answer):
    assert load(lines(tmp_path, {"problem": "?"} | row))[0].answer == answer


def test_two_answers_in_a_text_are_refused_as_in_a_list(tmp_path):
    with pytest.raises(ValueError, match="field 'answer': expected one answer, got a list of 2"):
        load(lines(tmp_path, {"problem": "?", "answer": '["1", "2"]'}))


RATED = [
    {"problem": f"{'?' * n}", "answer": a, "rate": n / 4}
    for n, a in enumerate(("x", "12", "-1/2", "1,024"), 1)
]


@pytest.mark.parametrize(
    ("filters", "kept", "said"),
    [
        (Filters(min_prompt_chars=3), [3, 4], "2 with prompts shorter than 3 characters"),
        (Filters(max_prompt_chars=3), [1, 2, 3], "1 with prompts longer than 3 characters"),
        (Filters(min_pass_rate=0.5), [2, 3, 4], "1 with pass rates below 0.5"),
        (Filters(min_pass_rate=0.25, max_pass_rate=0.75), [1, 2, 3], "1 with pass rates above 0.75"),
        (Filters(answer_kind="integer"), [2, 4], "2 with answers that are no integer"),
        (Filters(answer_kind="number"), [2, 3, 4], "1 with answers that are no number"),
        (
            Filters(min_prompt_chars=2, max_pass_rate=0.75),
            [2, 3],
            "1 with prompts shorter than 2 characters, 1 with pass rates above 0.75",
        ),
    ],
)
def test_filters_keep_and_say_how_many_they_left_out(tmp_path, filters, kept, said):
    path = lines(tmp_path, *RATED)
    with pytest.warns(UserWarning, match="left out") as warned:
        problems = load(path, columns={"pass_rate": "rate"}, filters=filters)
    assert [len(problem.prompt) for problem in problems] == kept
    (message,) = [str(warning.message) for warning in warned]
    assert message == f"data 'data': left out {4 - len(kept)} of 4 problems: {said}"
    assert [problem.id for problem in problems] == [f"data-{number - 1}" for number in kept]  # by row


def test_filters_that_keep_nothing_are_an_error(tmp_path):
    with (
        pytest.warns(UserWarning, match="left out 4 of 4 problems"),
        pytest.raises(ValueError, match=r"data.jsonl: holds no problem that the filters keep"),
    ):
        load(lines(tmp_path, *RATED), filters=Filters(min_prompt_chars=9))


def test_count_takes_the_first_ones_that_are_kept(tmp_path):
    with pytest.warns(UserWarning, match="left out 2 of 4"):
        (problem,) = load(lines(tmp_path, *RATED), filters=Filters(answer_kind="integer"), count=1)
    assert problem.answer == "12"


def test_a_pass_rate_that_is_not_there_is_an_error_and_one_that_is_null_is_left_out(tmp_path):
    rows = [{"problem": "?", "answer": "1", "solve_rate": rate} for rate in (0.5, None)]
    with pytest.warns(UserWarning, match="left out 1 of 2 problems: 1 with no pass rate"):
        assert len(load(lines(tmp_path, *rows), filters=Filters(max_pass_rate=0.9))) == 1
    with pytest.raises(ValueError, match=r"line 1: has no pass rate, it has only .*columns = {'pass_rate'"):
        load(lines(tmp_path, {"problem": "?", "answer": "1"}), filters=Filters(max_pass_rate=0.9))
    with pytest.raises(ValueError, match=r"line 1, field 'solve_rate': expected a share in \[0, 1\], got 50"):
        load(lines(tmp_path, rows[0] | {"solve_rate": 50}), filters=Filters(max_pass_rate=0.9))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_prompt_chars": -1}, "min_prompt_chars: must be at least 0, got -1"),
        ({"max_pass_rate": 1.5}, r"max_pass_rate: must be in \[0, 1\], got 1.5"),
        ({"min_pass_rate": 0.5, "max_pass_rate": 0.4}, "min_pass_rate: must be at most max_pass_rate = 0.4"),
        ({"answer_kind": "word"}, "answer_kind: must be any, integer or number, got 'word'"),
    ],
)
def test_bad_filters_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Filters(**limits)


def test_a_generated_set_has_neither_columns_nor_filters():
    with pytest.raises(ValueError, match="the generated set 'tiny' has neither columns nor filters"):
        load("tiny", count=2, filters=Filters())
