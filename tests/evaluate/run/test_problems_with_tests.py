"""Sets of programs are graded by their tests, others by their answers, and nothing by the other's reward."""

import pytest

from elastic.data import Problem
from elastic.data.code_tests import StdinTest
from elastic.evaluate.run.open_set import eval_set
from elastic.rewards.code import Rules
from tests.rewards.sandbox.programs import needs_sandbox

PROGRAMS = [Problem("double", "", "a", tests=(StdinTest("2", "4"), StdinTest("3", "6")))]
ANSWERS = [Problem("1?", "1", "b")]


@needs_sandbox
def test_programs_are_run_on_their_tests() -> None:
    data = eval_set("humaneval-plus", PROGRAMS, tokenizer=None)
    programs = {"print(2 * int(input()))": 1.0, "print(4)": 0.0, "print(2 * input())": 0.0}
    for program, grade in programs.items():
        assert data.reward(f"</think>```python\n{program}\n```", PROGRAMS[0].reference) == grade
    assert data.facts()["reward"] == "code_reward(6 s, 1024 MiB)"


@needs_sandbox
def test_other_tests_are_another_set() -> None:
    def digest(tests: tuple[StdinTest, ...]) -> object:
        return eval_set("a", [Problem("double", "", "a", tests=tests)], None).facts()["answers_sha256"]

    assert digest((StdinTest("2", "4"),)) != digest((StdinTest("2", "5"),))


@pytest.mark.parametrize(
    ("problems", "reward", "message"),
    [
        (PROGRAMS, "math", "reward: 'math' runs no tests, and problems of 'some' are graded by tests"),
        (ANSWERS, "code", "reward: 'code' runs tests, and problems of 'some' have none"),
        ([*PROGRAMS, *ANSWERS], None, "reward: 'code' runs tests, and problems of 'some' have none"),
    ],
)
def test_a_reward_that_does_not_fit_the_problems_is_refused(
    problems: list[Problem], reward: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        eval_set("some", problems, None, reward=reward)


@needs_sandbox
def test_programs_that_cannot_be_run_are_refused() -> None:
    with pytest.raises(ValueError, match="reward: 'code' cannot be given: a right program is not graded so"):
        eval_set("some", PROGRAMS, None, rules=Rules(memory_mb=2))
