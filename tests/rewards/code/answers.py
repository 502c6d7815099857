"""Responses that hold a program, and their grade."""

from elastic.rewards.code import code_reward


def response(program: str) -> str:
    return f"a thought</think>The program:\n```python\n{program}\n```\n"


def grade(program: str, *tests: object, timeout_s: float = 5.0, **options: object) -> float:
    return code_reward(response(program), tests, timeout_s=timeout_s, **options)
