"""Tests that are programs, as those of HumanEval: the solution is in another process."""

import json

import pytest

from elastic.data import load
from elastic.data.code_tests import ProgramTest
from elastic.data.sets import SETS
from elastic.rewards.code import code_reward
from tests.rewards.code.answers import grade, response
from tests.rewards.sandbox.programs import needs_sandbox

pytestmark = needs_sandbox

# Of the form that evalplus gives its tests; written for these tests.
PLUS = """
import numpy as np

def is_floats(x):
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

def check(candidate):
    inputs = {inputs}
    results = {results}
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""
HALVES = PLUS.format(inputs="[[[1, 2]], [[]], [[3]]]", results="[[0.5, 1.0], [], [1.5]]")
COUNTS = PLUS.format(inputs="[['aab'], ['']]", results="[{'a': 2, 'b': 1}, {}]")


def test_a_file_of_the_humaneval_format_is_graded_right(tmp_path) -> None:
    rows = [
        {"task_id": "T/0", "prompt": "def halves(x):\n", "test": HALVES, "entry_point": "halves"},
        {"task_id": "T/1", "prompt": "def counts(x):\n", "test": COUNTS, "entry_point": "counts"},
    ]
    path = tmp_path / "humaneval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    halves, counts = load(path, columns=SETS["humaneval-plus"].columns)
    for problem, program, right in [
        (halves, "def halves(x):\n    return [v / 2 for v in x]", 1.0),
        (halves, "def halves(x):\n    return [v / 2 + 1e-9 for v in x]", 1.0),
        (halves, "def halves(x):\n    return [v / 2 + 1e-5 for v in x]", 0.0),
        (halves, "def halves(x):\n    return [v // 2 for v in x]", 0.0),
        (halves, "def halves(x):\n    return [v / 2 for v in x] or None", 0.0),
        (halves, "def wholes(x):\n    return [v / 2 for v in x]", 0.0),
        (counts, "from collections import Counter\ndef counts(x):\n    return Counter(x)", 1.0),
        (counts, "def counts(x: str) -> Dict[str, int]:\n    return {c: x.count(c) for c in x}", 1.0),
        (counts, "def counts(x):\n    return {c: 1 for c in x}", 0.0),
        (counts, "def halves(x):\n    return [v / 2 for v in x]", 0.0),
        (counts, "def counts(x:", 0.0),
    ]:
        assert code_reward(response(program), problem.reference) == right, program


def check(body: str) -> ProgramTest:
    return ProgramTest(f"def check(candidate):\n    {body}\n\ncheck(f)\n")


VALUES = "({1: {2}}, [None, 1j], b'b', (True,), frozenset([3]), range(3))"
RAISES = """
    try:
        candidate(1)
    except ValueError as error:
        assert str(error) == "no"
    else:
        assert False
"""
OBJECT = "class f:\n    def __init__(self, x):\n        self.x = x\n    def get(self):\n        return self.x"
NODES = "class Node:\n    pass\ndef f(n):\n    return type(n) is Node"
POINTS = "from collections import namedtuple\nP = namedtuple('P', 'x')\ndef f(x):\n    return [P(x)]"


@pytest.mark.parametrize(
    ("program", "body"),
    [
        (f"def f(x):\n    return {VALUES}", f"assert candidate(0) == {VALUES}"),
        ("def f(*x, k=1):\n    return x, k", "assert candidate(1, 2, k=3) == ((1, 2), 3)"),
        ("def f(x):\n    raise ValueError('no')", RAISES),
        (
            "n = []\ndef f(x):\n    n.append(x)\n    return len(n)",
            "candidate(1)\n    assert candidate(1) == 2",
        ),
        ("def g(x):\n    return 2 * x\ndef f(x):\n    return g(x)", "assert candidate(2) == g(2) == 4"),
        ("LIMIT = 3\ndef f(x):\n    return x", "assert candidate(LIMIT) == 3"),
        (OBJECT, "assert candidate(4).get() == candidate(4).x == 4"),
        (NODES, "assert candidate(Node()) and not candidate(1)"),
        (POINTS, "assert candidate(1) == [(1,)]"),
        ("def f(x):\n    return math.sqrt(x)", "assert candidate(4) == 2 < math.pi"),
    ],
)
def test_plain_values_exceptions_and_objects_go_between_the_two(program: str, body: str) -> None:
    assert grade(program, check(body)) == 1.0


@pytest.mark.parametrize(
    "body",
    ["import pandas", "import numpy as np\n    np.linalg.norm(1)", "x = = 1"],
)
def test_a_test_that_cannot_run_here_is_an_error_and_no_wrong_answer(body: str) -> None:
    with pytest.raises(ValueError, match=r"tests: a test that is a program cannot run: (Module|Syntax)"):
        grade("def f(x):\n    return x", check(body))


def test_a_check_that_takes_too_long_is_ended() -> None:
    assert grade("def f(x):\n    while True: pass", check("candidate(1)"), timeout_s=1.0) == 0.0
