"""Tests of programs: the shapes that sets keep them in, as one of three records."""

import base64
import json
import pickle
import zlib

import pytest

from elastic.data import code_tests as code
from elastic.data import load
from elastic.data.code_tests import CallTest, ProgramTest, StdinTest, program_test, read_tests
from tests.data.hub_copies import packed

IN_OUT = {"input": "1\n", "output": "2\n"}
NAMED = {"func_name": "g"}


@pytest.mark.parametrize(
    ("value", "tests"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ("[]", ()),
        ([IN_OUT], [StdinTest("1\n", "2\n")]),
        (json.dumps([IN_OUT]), [StdinTest("1\n", "2\n")]),
        (str({"language": "python", "test_cases": [IN_OUT]}), [StdinTest("1\n", "2\n")]),
        (packed([IN_OUT | {"testtype": "stdin"}]), [StdinTest("1\n", "2\n")]),
        ([["1\n", "2\n"]], [StdinTest("1\n", "2\n")]),
        (
            {"inputs": ["1\n", ["2", "3"]], "outputs": [5, ["6"]]},
            [StdinTest("1\n", "5"), StdinTest("2\n3", "6")],
        ),
        (
            {"fn_name": "f", "inputs": [[1, "a"]], "outputs": [[[2]]]},
            [CallTest("f", '[1, "a"]', ("[[2]]", "[2]"))],
        ),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [2]}, [CallTest("f", "[1]", ("2",))]),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [[2, 3]]}, [CallTest("f", "[1]", ("[2, 3]",))]),
        (
            [{"type": "function_call", "fn_name": "f", "input": "[[6, 2]]", "output": "[3]"}],
            [CallTest("f", "[[6, 2]]", ("[3]", "3"))],
        ),
        (
            [
                {
                    "testtype": "functional",
                    "input": '"ab"\n[0.5]',
                    "output": "true",
                    "metadata": {"func_name": "g"},
                }
            ],
            [CallTest("g", '["ab", [0.5]]', ("true",))],
        ),
        (
            [{"testtype": "functional", "input": "1", "output": "2", "metadata": '{"func_name": "g"}'}],
            [CallTest("g", "[1]", ("2",))],
        ),
        ([{"testtype": "functional", "input": "1", "output": "[1]"}], [CallTest("h", "[1]", ("[1]",))]),
        ([IN_OUT | {"testtype": "stdin"}], [StdinTest("1\n", "2\n")]),  # whatever the row's function is
        (
            {
                "any_order": True,
                "test_cases": [IN_OUT | {"accepted": ["3", 4]}, IN_OUT | {"any_order": False}],
            },
            [StdinTest("1\n", "2\n", accepted=("3", "4"), any_order=True), StdinTest("1\n", "2\n")],
        ),
        (
            {"fn_name": "f", "inputs": [[1]], "outputs": [[2, 3]], "any_order": True},
            [CallTest("f", "[1]", ("[2, 3]",), any_order=True)],
        ),
        (
            [
                {
                    "input": "1",
                    "output": "[2]",
                    "accepted": ["[3]"],
                    "testtype": "functional",
                    "fn_name": "f",
                },
                {"input": [1], "output": 2, "accepted": [3], "fn_name": "f"},
            ],
            [CallTest("f", "[1]", ("[2]", "[3]")), CallTest("f", "[1]", ("2", "3"))],
        ),
    ],
)
def test_every_shape_of_tests_becomes_a_record(value, tests):
    function = "h" if isinstance(value, list) and value and "testtype" in value[0] else None
    assert read_tests(value, "row 0", function) == tuple(tests)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no tests", r"row 0: neither JSON nor packed tests: 'no tests'"),
        (5, "row 0: expected tests, got 5"),
        ({"cases": []}, r"row 0: tests need 'inputs' and 'outputs', got the fields \['cases'\]"),
        ({"inputs": ["1"], "outputs": []}, "row 0: has 1 inputs and 0 outputs"),
        ([IN_OUT, {"input": "1"}], "row 0, test 1: expected an object with 'input' and 'output'"),
        ([IN_OUT | {"accepted": "3"}], "row 0, test 0: accepted must be a list of outputs, got '3'"),
        ({"test_cases": [IN_OUT], "any_order": 1}, "row 0: any_order must be true or false, got 1"),
        ([IN_OUT | {"type": "gui"}], "row 0, test 0: unknown kind of test 'gui'"),
        ([IN_OUT | {"testtype": "functional"}], "row 0, test 0: calls a function, but names none"),
        (
            [IN_OUT | {"testtype": "functional", "metadata": "easy"}],
            "row 0, test 0: calls a function, but names none",
        ),
        ([IN_OUT | {"fn_name": "f", "testtype": "functional", "input": "a b"}], "test 0: not JSON: 'a b'"),
        ([{"input": {"a": 1}, "output": ""}], r"row 0, test 0: expected text, got {'a': 1}"),
        ([{"fn_name": "f", "input": {"a": 1}, "output": 1}], "test 0: expected a list of arguments"),
    ],
)
def test_other_shapes_are_refused_with_their_place(value, message):
    with pytest.raises(ValueError, match=message):
        read_tests(value, "row 0")


class Evil:
    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


@pytest.mark.parametrize(
    "payload", [Evil(), [Evil()], ["a text in a list"]], ids=["code", "inside", "no text"]
)
def test_a_pickle_that_holds_more_than_a_text_is_refused_and_runs_nothing(payload):
    text = base64.b64encode(zlib.compress(pickle.dumps(payload))).decode()
    with pytest.raises(
        ValueError, match=r"row 0: (neither JSON nor packed tests|packed tests must be a text)"
    ):
        read_tests(text, "row 0")
    assert not Evil.ran


@pytest.mark.parametrize("pickled", [b"", b"garbage", b"\x80\x04\x95", b"(K\x01i", pickle.dumps("x")[:-2]])
def test_a_broken_pickle_is_refused_with_its_place(pickled):
    with pytest.raises(ValueError, match="row 0: neither JSON nor packed tests"):
        read_tests(base64.b64encode(zlib.compress(pickled)).decode(), "row 0")


def test_packed_tests_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(code, "_MOST_UNPACKED", 1000)
    with pytest.raises(ValueError, match="row 0: packed tests of more than 1000 bytes"):
        read_tests(packed([IN_OUT | {"input": "1" * 2000}]), "row 0")


def test_records_are_frozen_and_of_three_kinds():
    tests = {StdinTest("", ""), CallTest("f", "[]", ("1",)), ProgramTest("assert True")}  # hashable
    assert {test.kind for test in tests} == {"stdin", "call", "program"}


def test_a_program_checks_the_function_that_is_named():
    assert program_test("assert f(1)", "row 0", None) == ProgramTest("assert f(1)")
    assert program_test("def check(c): ...", "row 0", "f") == ProgramTest("def check(c): ...\ncheck(f)\n")
    with pytest.raises(ValueError, match="row 0: expected a program, got ''"):
        program_test("", "row 0", "f")


def test_a_file_of_programming_problems_has_tests_and_no_answers(tmp_path):
    path = tmp_path / "code.jsonl"
    rows = [
        {
            "problem": "Double.",
            "starter_code": "def f(a):\n",
            "tests": {"fn_name": "f", "inputs": [[1.5]], "outputs": [3]},
        },
        {"problem": "Read.", "tests": [IN_OUT], "answer": ""},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    double, read = load(path)
    assert double.prompt == "Double.\n\nBegin with this code:\n```python\ndef f(a):\n```"
    assert (double.answer, double.tests) == ("", (CallTest("f", "[1.5]", ("3",)),))
    assert (read.prompt, read.answer, read.tests) == ("Read.", "", (StdinTest("1\n", "2\n"),))


@pytest.mark.parametrize("tests", [None, [], "[]"])
def test_a_row_without_tests_is_an_error_where_the_column_is_named(tmp_path, tests):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"problem": "?", "cases": tests, "answer": "1"}))
    with pytest.raises(ValueError, match=r"code.jsonl, line 1, field 'cases': holds no test"):
        load(path, columns={"tests": "cases"})
