"""Every named set, loaded from a small copy in its own schema through the same code as from the hub."""

import warnings
from pathlib import Path

import pytest

from elastic.data import Problem, load
from elastic.data.code_tests import CallTest, ProgramTest, StdinTest
from elastic.data.sets import EVALUATION, SETS, TRAINING
from tests.data.hub_copies import use_copies

DOCS = Path(__file__).parents[2] / "docs" / "data.md"

STDIN = (StdinTest("1 2\n", "3\n"), StdinTest("2 2\n", "4\n"))
CALL = CallTest("solve", "[[1, 2], 3]", ("[3, 6]",))
BEGIN = "\n\nBegin with this code:\n```python\nclass Solution: ...\n```"

# (set, split) -> (prompt, answer, id) of its problems
MATH = {
    ("aime-1983-2023", None): [("In 1983?", "073", "1983-1"), ("In 2023?", "073", "2023-1")],
    ("amc-train", None): [("amc_aime?", r"\frac{3}{4}", "amc-train-0")],
    ("omni-math", None): [("Omni?", "5", "omni-math-0")],
    ("still-3", None): [("Still?", "6", "still-3-0")],
    ("deepscaler", None): [("Deep?", r"-\frac{2}{3}", "deepscaler-0")],
    ("aime-2024", None): [("Aya?", "204", "60")],
    ("math500", None): [("Convert.", "(3, 4)", "test/precalculus/807.json")],
    ("amc", None): [("Amc?", "142", "0")],
    ("olympiadbench", None): [("Olympiad 1606?", "2", "1606"), ("Olympiad 1610?", "$-1,7$", "1610")],
    ("minerva", None): [("How hot?", "1.6", "minerva-0")],
    ("gsm8k", None): [("Eggs?", "18", "gsm8k-0")],
    ("gsm8k", "train"): [("Clips?", "72", "gsm8k-0")],
}
# likewise (prompt, tests, id)
PRIME = "Solve the following coding problem using the programming language python: "
FUNCTION = CallTest("f", "[1, [2]]", ("[3]", "3"))
CALLED = CallTest("f", "[1]", ("[2]", "2"))
CODE = {
    ("taco", None): [("Stdin?", (StdinTest("1\n", "2\n"),), "taco-0"), ("Call?", (FUNCTION,), "taco-1")],
    ("synthetic-1", None): [(f"{PRIME}0", STDIN, "synthetic-1-0"), (f"{PRIME}2", (CALLED,), "synthetic-1-1")],
    ("deepcoder", None): [
        ("P?", (CALLED,), "deepcoder-0"),
        ("T?", (FUNCTION,), "deepcoder-1"),
        (f"L?{BEGIN}", (CALL,), "deepcoder-2"),
    ],
    ("deepcoder", "test"): [("C?", STDIN, "deepcoder-0"), (f"L?{BEGIN}", (CALL,), "deepcoder-1")],
    ("codeforces", None): [("C?", STDIN, "codeforces-0")],
    ("livecodebench", None): [(f"Solve new.{BEGIN}", (CALL, CALL), "new")],
    ("livecodebench", "train"): [("Solve old.", STDIN + STDIN, "old")],
    ("humaneval-plus", None): [
        (
            f'def f{n}(a):\n    """The same."""\n',
            (ProgramTest(f"def check(candidate):\n    assert candidate(1) == 1\n\ncheck(f{n})\n"),),
            f"HumanEval/{n}",
        )
        for n in (0, 1)
    ],
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use_copies(patch, tmp_path_factory.mktemp("hub"))
        yield


@pytest.mark.parametrize(("name", "split"), MATH)
def test_a_math_set_loads_from_its_schema(copies, name, split):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problems = load(name, split=split)
    assert problems == [Problem(prompt, answer, id, name) for prompt, answer, id in MATH[name, split]]
    assert SETS[name].kind == "math"


@pytest.mark.parametrize(("name", "split"), CODE)
def test_a_code_set_loads_from_its_schema(copies, name, split):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problems = load(name, split=split)
    assert problems == [Problem(prompt, "", id, name, tests) for prompt, tests, id in CODE[name, split]]
    assert SETS[name].kind == "code"


def test_every_set_and_split_has_a_copy_here():
    parts = {(name, split) for name, known in SETS.items() for split in list(known.parts)[1:]}
    assert {*MATH, *CODE} == parts | {(name, None) for name in SETS}
    assert not TRAINING.keys() & EVALUATION.keys()


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("amc-train", "1 of 2"), ("deepscaler", "1 of 2"), ("taco", "1 of 3")],
)
def test_rows_without_an_answer_are_left_out_and_said(copies, name, left_out):
    with pytest.warns(UserWarning, match=f"data '{name}': left out {left_out} problems: 1 with no answer"):
        load(name)


def test_a_split_that_a_set_lacks_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="the set 'math500' has no split 'train', only test"):
        load("math500", split="train")


def test_columns_of_a_named_set_can_be_replaced(copies):
    assert load("olympiadbench", columns={"prompt": "subject"})[0].prompt == "Math"


def test_the_page_lists_every_set():
    page = DOCS.read_text()
    for name, known in (TRAINING | EVALUATION).items():
        splits = ", ".join(known.parts)
        configs = {config for part in known.parts.values() for config in part.configs}
        hub = f"`{known.hub}`" + (f" ({', '.join(sorted(configs))})" if configs else "")
        assert f"| `{name}` | {splits} | {hub} | {known.licence} | {known.origin} |" in page, name
        assert not known.note or f"- `{name}`: {known.note}" in page, name
