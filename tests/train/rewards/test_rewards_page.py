"""The functions of docs/rewards.md run as they are printed."""

import re
from pathlib import Path

from elastic.rewards.combined import Rewards
from tests.rewards.written import PROBLEMS, written_batch

PAGE = Path(__file__).parents[3] / "docs" / "rewards.md"


def test_the_functions_of_the_page_run_as_printed():
    names = {"compute_score": lambda source, text, truth: float(truth in text)}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    functions = {name: names[name] for name in ("brevity", "has_truth", "score")}
    graded = Rewards(functions).grade(written_batch(), PROBLEMS)
    solution = [-n / 1000 for n in written_batch().solution_tokens.tolist()]
    expected = [solution, [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    assert graded.parts.T.tolist() == expected
