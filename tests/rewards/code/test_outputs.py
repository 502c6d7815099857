"""Programs graded by what they print or return."""

import sys
import warnings

import pytest

from elastic.data.code_tests import CallTest, ProgramTest, StdinTest
from elastic.rewards.code import code_reward
from elastic.rewards.code.run import Rules, check, outputs
from tests.rewards.code.answers import grade, response
from tests.rewards.sandbox.programs import needs_sandbox

pytestmark = needs_sandbox

ADD = [StdinTest(f"{i}\n{i}\n", str(2 * i)) for i in range(12)]
READS_ALL = "import sys\na, b = map(int, sys.stdin.read().split())\nprint(a + b)"


@pytest.mark.parametrize(
    "program",
    [
        "print(int(input()) + int(input()))",
        READS_ALL,
        "import os\nprint(sum(map(int, os.read(0, 100).split())))",
        "def main():\n    print(sum(int(x) for x in sys.stdin))\nif __name__ == '__main__':\n    main()",
        "from threading import *\nThread(target=lambda: print(int(input()) + int(input()))).start()",
        "import sys\nsys.stdout.write(str(int(input()) + int(input())))\nexit()",
        "import os\nos.write(1, str(int(input()) + int(input())).encode())\nos._exit(0)",
        "print(int(input()) + int(input()))\nimport sys\nsys.stdout.close()",
        "import atexit\natexit.register(lambda: print(a + b))\na, b = int(input()), int(input())",
        "out = open(1, 'w', closefd=False)\nout.write(str(int(input()) + int(input())))",
        "import io, sys\nsys.stdout = io.TextIOWrapper(open(1, 'wb'))\nprint(int(input()) + int(input()))",
        "import concurrent.futures as c\np = c.ThreadPoolExecutor()\n"
        "p.submit(lambda: (time.sleep(0.1), print(int(input()) + int(input()))))",
        "print(reduce(operator.add, (int(input()) for _ in range(2))))",
        "import sys\nsys.stderr.write('x' * 100000)\nprint(int(input()) + int(input()))",
        "from __future__ import annotations\nprint(int(input()) + int(input()))",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and 1 + f(n - 1)\n"
        "print(int(input()) + int(input()) + f(20000) - 20000)",
    ],
)
def test_a_program_that_prints_the_right_output_gets_one(program: str) -> None:
    assert grade(program, *ADD[:2]) == 1.0


@pytest.mark.parametrize(
    "program",
    [
        "print(2 * int(input()) + 1)",
        "print(6)",  # right in one test
        "print(int(input()) + int(input()),",
        "raise SystemExit(0)",
        "print(int(input()) + int(input()))\nraise ValueError",
        "print(int(input()) + int(input()))\nimport sys\nsys.exit(1)",
        "import numpy\nprint(int(input()) + int(input()))",
        "print(int(input()) + int(input()))\nprint('debug')",
        "",
        "\0",
    ],
)
def test_a_program_that_does_not_gets_zero(program: str) -> None:
    assert grade(program, *ADD) == 0.0


def test_the_last_of_many_tests_counts_as_the_first() -> None:
    assert grade(READS_ALL, *ADD) == 1.0
    assert grade(READS_ALL, *ADD, StdinTest("1 2", "4")) == 0.0


def test_each_test_has_a_fresh_process() -> None:
    program = "import pathlib, json\nprint(json.__dict__.setdefault('seen', input()))"
    assert grade(program, StdinTest("a", "a"), StdinTest("b", "b"), StdinTest("c", "c")) == 1.0


def test_the_same_program_draws_and_hashes_alike_each_time() -> None:
    program = "import random\nprint(random.random(), list({'a', 'b', 'c', 'd'}))"
    printed = {str(outputs(program, [StdinTest("", "")], Rules())) for _ in range(3)}
    assert len(printed) == 1


FUNCTION = CallTest("f", "[[3, 1, 2], 1]", ("[1, 2, 3]",))


@pytest.mark.parametrize(
    "program",
    [
        "def f(x, k):\n    return sorted(x)",
        "class Solution:\n    def f(self, x: List[int], k: Optional[int]):\n        return sorted(x)",
        "f = lambda x, k: tuple(sorted(x))",
        "def f(x, k):\n    print('a trace')\n    return sorted(x)\nif __name__ == '__main__':\n    f(9)",
        "def f(x, k):\n    heapify(x)\n    return [heappop(x) for _ in range(3)]",
        "def f(x, k):\n    return sorted(x, key=cmp_to_key(lambda a, b: pow(a, 1, 9) - b))",
        "def helper(x):\n    return math.floor(x)\ndef f(x, k):\n    return [helper(v) for v in sorted(x)]",
    ],
)
def test_a_function_or_method_that_returns_the_right_value_gets_one(program: str) -> None:
    assert grade(program, FUNCTION, FUNCTION) == 1.0


@pytest.mark.parametrize(
    "program",
    [
        "def f(x, k):\n    return x",
        "def g(x, k):\n    return sorted(x)",
        "def f(x):\n    return sorted(x)",
        "def f(x, k):\n    print(sorted(x))",
        "def f(x, k):\n    raise ValueError",
        "def f(x, k):\n    return {1, 2, 3}",
        "class Solution:\n    f = 1",
    ],
)
def test_a_function_that_does_not_gets_zero(program: str) -> None:
    assert grade(program, FUNCTION) == 0.0


def test_time_is_limited_for_each_test_alone() -> None:
    slow = "import time\nn = int(input())\nt = time.process_time()\n"
    slow += "while time.process_time() - t < 0.4 * n: pass\nprint(n)"
    tests = [StdinTest("1", "1")] * 3  # 0.4 s each
    assert grade(slow, *tests, timeout_s=1.0) == 1.0
    assert grade(slow, StdinTest("9", "9"), timeout_s=1.0) == 0.0


def test_a_program_that_sleeps_is_ended_by_the_clock() -> None:
    assert grade("import time\ntime.sleep(60)", StdinTest("", ""), timeout_s=0.2) == 0.0


def test_memory_is_limited() -> None:
    program = "x = bytearray(300 << 20)\nprint(len(x))"
    assert grade(program, StdinTest("", str(300 << 20)), memory_mb=1024) == 1.0
    assert grade(program, StdinTest("", str(300 << 20)), memory_mb=256) == 0.0


def test_large_inputs_and_outputs_pass() -> None:
    text = "\n".join(map(str, range(200_000)))
    assert grade("import sys\nsys.stdout.write(sys.stdin.read())", StdinTest(text, text)) == 1.0


def test_an_endless_output_is_ended_and_the_next_test_is_not_run() -> None:
    assert grade("while True: print('x' * 1000)", StdinTest("", "x")) == 0.0


def test_tests_may_come_as_sets_keep_them() -> None:
    assert code_reward(response(READS_ALL), {"inputs": ["1 2\n"], "outputs": ["3\n"]}) == 1.0
    assert code_reward(response(READS_ALL), [{"input": "1 2", "output": "3", "type": "stdin_stdout"}]) == 1.0


@pytest.mark.parametrize(
    ("tests", "options", "message"),
    [
        ((), {}, "tests: must not be empty"),
        ([], {}, "tests: must not be empty"),
        (5, {}, "tests: expected tests, got 5"),
        (ADD, {"timeout_s": 0}, "timeout_s: must be above 0, got 0"),
        (ADD, {"memory_mb": -1}, "memory_mb: must be above 0, got -1"),
    ],
)
def test_bad_arguments_are_named(tests: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code_reward(response("x"), tests, **options)


def test_limits_under_which_no_program_runs_are_refused_and_grade_nothing_wrong() -> None:
    with pytest.raises(
        RuntimeError, match=r"a right program is not graded so under Rules\(timeout_s=5.0, memory_mb=4"
    ):
        grade(READS_ALL, *ADD, memory_mb=4)
    check.cache_clear()


def test_half_a_character_is_graded_like_any_text() -> None:
    assert grade("print('\ud800')", StdinTest("", "?")) == 1.0


def test_python_is_that_of_the_package() -> None:
    program = "import sys\nprint(sys.version_info[0], sys.version_info[1])"
    assert grade(program, StdinTest("", f"{sys.version_info[0]} {sys.version_info[1]}")) == 1.0


def test_without_a_sandbox_the_grades_are_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once a process, that programs have its rights
        assert grade(READS_ALL, *ADD, sandbox=False) == 1.0
        assert grade(READS_ALL, StdinTest("1 2", "4"), sandbox=False) == 0.0
        assert grade("def f(x, k):\n    return sorted(x)", FUNCTION, sandbox=False) == 1.0
        for program, right in (("def f(x):\n    return x", 1.0), ("def f(x):\n    return -x", 0.0)):
            assert grade(program, ProgramTest("assert f(3) == 3"), sandbox=False) == right
        assert grade("while True: pass", StdinTest("", ""), sandbox=False, timeout_s=0.5) == 0.0
