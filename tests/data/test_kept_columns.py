"""Further columns of a source in `Problem.columns`."""

import json

import pytest

from elastic.data import Problem, load

ROWS = [
    {
        "question": f"{n} + 1 = ?",
        "answer": n + 1,
        "level": n / 4,
        "extra": {"index": n, "tags": [0.25, 0.5]},
        "note": json.dumps({"source": f"page {n}"}),
    }
    for n in range(3)
]
KEEP = ("level", "extra.index", "extra.tags", "note.source")
EXPECTED = [{"level": n / 4, "index": n, "tags": [0.25, 0.5], "source": f"page {n}"} for n in range(3)]


@pytest.fixture(params=["jsonl", "json", "parquet"])
def source(request, tmp_path):
    path = tmp_path / f"rows.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif request.param == "json":
        path.write_text(json.dumps(ROWS))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def test_columns_are_kept_by_the_last_step_of_their_path_with_pythons_numbers(source):
    found = [problem.columns for problem in load(source, keep=KEEP)]
    assert found == EXPECTED
    assert [type(value) for value in found[1].values()] == [float, int, list, str]
    assert type(found[1]["tags"][1]) is float


def test_nothing_is_kept_unasked(source):
    assert [problem.columns for problem in load(source)] == [{}] * 3


def test_a_row_without_the_column_is_refused_by_its_place(source):
    with pytest.raises(ValueError, match=r"(line 1|item 0|row 0): has no field 'extra.name', it has only"):
        load(source, keep=["extra.name"])


def test_columns_that_cannot_be_told_apart_are_refused(source):
    with pytest.raises(ValueError, match=r"keep: level and extra.level would both be called 'level'"):
        load(source, keep=["level", "extra.level"])
    with pytest.raises(ValueError, match=r"keep: must be columns' names or dotted paths"):
        load(source, keep=[""])


def test_a_generated_set_has_no_columns():
    with pytest.raises(ValueError, match="the generated set 'tiny' has neither columns nor filters"):
        load("tiny", count=2, keep=["level"])


def test_problems_with_columns_can_be_keys_and_differ_by_their_columns():
    left, right = (Problem("1 + 1", "2", columns={"level": level}) for level in (1, 2))
    assert left != right
    assert len({left, right}) == 2
