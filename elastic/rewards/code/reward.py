"""The reward for programming: whether a solution's program passes its tests."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, get_args

from elastic.data.code_tests import CodeTest, read_tests
from elastic.rewards.code.extract import program
from elastic.rewards.code.run import Rules, check, passes
from elastic.rewards.response import END_MARKER, solution_text

CodeGrader = Callable[[str, Any], float]


def code_reward(
    response: str,
    tests: Sequence[CodeTest] | Any,
    *,
    timeout_s: float = 6.0,
    memory_mb: int = 1024,
    sandbox: bool = True,
    end_marker: str | None = END_MARKER,
) -> float:
    """1.0 if the program in the solution passes all tests, otherwise 0.0.

    Only text behind the first end marker counts: a program in the thought is none. The program is the last
    fenced block of Python; docs/code-rewards.md has the rules. It runs in a sandbox, within limits; what is
    expected of it is compared outside.

    Args:
        response: decoded text of a completion, without the prompt.
        tests: `elastic.data.Problem.tests`, or one of the shapes that `elastic.data.code_tests.read_tests`
            knows.
        timeout_s: seconds of processor time for each test; of the clock it may take five times as many.
        memory_mb: MiB for the program and what it starts.
        sandbox: False runs it without a sandbox, with the rights of this process.
        end_marker: None grades the whole response.

    Raises:
        ValueError: no tests, tests of an unknown shape, a limit that is not above 0, or a test that cannot
            run here.
        SandboxMissing: there is no sandbox here; the message says what to install.
    """
    rules = Rules(timeout_s, memory_mb, sandbox)
    listed = _listed(tests)
    if not listed:
        raise ValueError("tests: must not be empty: without tests every program would be right")
    solution = solution_text(response, end_marker)
    source = None if solution is None else program(solution)
    check(rules)
    return 1.0 if source is not None and passes(source, listed, rules) else 0.0


def code_grader(rules: Rules) -> CodeGrader:
    """`code_reward` under rules, once it is known that programs run under them here.

    Raises:
        ValueError: there is no sandbox (the message says what to install), or no program runs under the
            rules.
    """
    try:
        check(rules)
    except RuntimeError as error:
        raise ValueError(f"reward: 'code' cannot be given: {error}") from error

    def grader(response: str, tests: Any) -> float:
        return code_reward(response, tests, **asdict(rules))

    grader.__name__ = f"code_reward({rules.timeout_s:g} s, {rules.memory_mb} MiB)"  # what evaluations record
    return grader


def _listed(tests: Any) -> Sequence[CodeTest]:
    if isinstance(tests, list | tuple) and all(isinstance(test, get_args(CodeTest)) for test in tests):
        return tests
    return read_tests(list(tests) if isinstance(tests, tuple) else tests, "tests")
