"""docs/code-rewards.md says what the code does."""

import inspect
import re
from pathlib import Path

import pytest

from elastic.rewards import code_reward
from elastic.rewards.code.rating import PERCENTILES
from elastic.train.config.reward import RewardConfig
from tests.rewards.sandbox.programs import needs_sandbox

PAGE = (Path(__file__).parents[3] / "docs/code-rewards.md").read_text()


@needs_sandbox
def test_its_python_runs_as_printed() -> None:
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert code_reward("</think>\n```python\nprint(2 * int(input()))\n```", names["tests"]) == 1.0
    assert names["found"].low < 1600 < names["found"].high


def test_its_table_has_every_option_with_its_default_and_key() -> None:
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(code_reward).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    rows = re.findall(r"^\| `([a-z_]+)(?:=(\S+))?` \| (?:`reward\.(\w+)`)?", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(options)
    for name, default, key in rows:
        assert default in ("", str(options[name]))
        assert not key or getattr(RewardConfig(), key) == options[name]


def test_its_percentiles_are_those_of_the_code() -> None:
    (points,) = re.findall(r"points \((.*?)\)", PAGE.replace("\n", " "))
    printed = [tuple(map(float, point.split(": "))) for point in points.split(", ")]
    assert set(printed) <= {(float(value), share) for value, share in PERCENTILES}


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)", PAGE))
def test_its_links_lead_somewhere(path: str) -> None:
    assert (Path(__file__).parents[3] / "docs" / path).exists()
