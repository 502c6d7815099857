"""Which text of a solution is its program."""

import pytest

from elastic.rewards.code import code_reward
from elastic.rewards.code.extract import program
from tests.rewards.sandbox.programs import needs_sandbox

FENCE = "```"


@needs_sandbox
@pytest.mark.parametrize(
    ("solution", "found"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```", "x = 1\n"),
        ("```Python3\nx = 1\n```", "x = 1\n"),
        ("``` python title=a.py\nx = 1\n```", "x = 1\n"),
        ("```{.python}\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("```python\n```", "\n"),
        ("First\n```python\nx = 1\n```\nBetter:\n```python\nx = 2\n```\nDone.", "x = 2\n"),
        # its output behind it, marked or not, and other languages
        ("```python\nprint(5)\n```\nIt prints\n```\n5\n```", "print(5)\n"),
        ("```python\nprint(5)\n```\n```text\n5\n```\n```bash\npython a.py\n```", "print(5)\n"),
        ("```cpp\nint x;\n```", None),
        ("no program at all", None),
        ("x = 1", None),
        ("`x = 1` and ```x = 1``` in a line", None),
        ("", None),
        # cut in the middle: what there is
        ("```python\nx = 1\ny =", "x = 1\ny =\n"),
        ("```python\nx = 1\n```\nAgain:\n```python\nx =", "x =\n"),
        # tokens at the end that belong to no text
        ("```python\nx = 1\n```<|im_end|>", "x = 1\n"),
        ("```python\nx = 1\n``` <|endoftext|>\n", "x = 1\n"),
        ("```python\nx = '<|im_end|>'\n```\n", "x = '<|im_end|>'\n"),
        # in a list
        ("1. So:\n   ```python\n   if x:\n       y()\n   ```", "if x:\n    y()\n"),
        # marks that are no fence of this block
        ('```python\ns = """\n    ```\n"""\n```', 's = """\n    ```\n"""\n'),
        ('```python\ns = """\n```python\nf()\n```\n"""\n```', 's = """\n```python\nf()\n```\n"""\n'),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("````markdown\n```python\nx = 1\n```\n````", "x = 1\n"),
        ("```\n```python\nx = 1\n```\n```", "x = 1\n"),
        ("```python\ns = '''\n~~~\n'''\n```", "s = '''\n~~~\n'''\n"),
    ],
)
def test_the_program_is_the_last_block_of_python(solution: str, found: str | None) -> None:
    assert program(solution) == found


@pytest.mark.parametrize(
    "response",
    [
        "```python\nprint(1)\n```",  # a thought that never ended
        "```python\nprint(1)\n```</think>The program is above.",
        "```python\nprint(1)\n```</think>```python\nprint(2)\n```",
        "</think>print(1)",
        "",
    ],
)
def test_a_program_in_the_thought_or_without_a_block_is_none(response: str) -> None:
    tests = [{"input": "", "output": "1"}]
    assert code_reward(response, tests) == 0.0
    assert code_reward("</think>```python\nprint(1)\n```", tests) == 1.0


@needs_sandbox
def test_the_whole_response_counts_without_an_end_marker() -> None:
    assert code_reward("```python\nprint(1)\n```", [{"input": "", "output": "1"}], end_marker=None) == 1.0


def test_many_fences_take_no_time() -> None:
    assert program("```python\n" + "```a\n" * 100_000) is not None
