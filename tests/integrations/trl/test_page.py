"""The page's example runs as printed, on the embedded model in the place of the reader's."""

import inspect
from pathlib import Path

import trl
from accelerate.state import AcceleratorState

from elastic.integrations.trl import TESTED, elastic_rollout_func
from elastic.integrations.trl.group_budgets import GroupBudgets
from elastic.models import tiny
from tests.integrations import pages
from tests.integrations.trl.runs import logged

ROOT = Path(__file__).parents[3]
PAGE = (pages.DOCS / "trl.md").read_text()
(EXAMPLE,) = pages.blocks("trl.md")


def test_the_example_trains_the_embedded_model(tmp_path, monkeypatch):
    options = {"use_cpu": True, "bf16": False, "max_steps": 1, "report_to": "none", "logging_steps": 1}
    monkeypatch.chdir(tmp_path)
    config = trl.GRPOConfig
    monkeypatch.setattr(trl, "GRPOConfig", lambda *given, **named: config(*given, **named, **options))
    AcceleratorState._reset_state(reset_partial_state=True)
    names: dict = {}
    exec(EXAMPLE.replace("path/to/a/reasoning/model", str(tiny.checkpoint())), names)
    (entry,) = logged(names["trainer"])
    assert entry["rewards/correct/mean"] > 0.5
    assert 0 < entry["completions/thinking_tokens"] < 512


def test_the_extra_is_the_range_that_is_let_in():
    first, end = TESTED
    assert f'trl = ["trl>={first},<{end}"]' in (ROOT / "pyproject.toml").read_text()


def test_the_page_names_every_argument_of_the_rollout_function():
    names = {*inspect.signature(elastic_rollout_func).parameters, *inspect.signature(GroupBudgets).parameters}
    assert [name for name in names - {"draw"} if f"`{name}`" not in PAGE] == []
