"""Lengths and rewards of a step's rows, by hand; and that the page lists every metric."""

import math
import re

import pytest
import torch

from elastic.train.collect.spread import spread
from elastic.train.run import gpu_memory
from tests.train.page import PAGE
from tests.train.test_train_metrics import STEP_KEYS


def test_lengths_are_those_of_the_rows_at_their_places():
    found = spread(torch.arange(40, 0, -1), torch.zeros(40), 4)
    assert found["completion_tokens_min"] == 1
    assert found["completion_tokens_p95"] == 38
    assert found["completion_tokens_max"] == 40


def test_the_deviation_is_taken_within_groups_and_leaves_rows_without_a_reward_out():
    nan = math.nan
    rewards = torch.tensor([0.0, 1, nan, nan, 5, 5, 5, 5, nan, nan, nan, 3])
    found = spread(torch.ones(12, dtype=torch.int64), rewards, 4)
    assert found["reward_std"] == pytest.approx(0.5**0.5 / 2)  # groups of two and four rewards; one has none


def test_nothing_graded_has_no_deviation():
    assert math.isnan(spread(torch.ones(2), torch.full((2,), math.nan), 2)["reward_std"])


def test_a_gpus_peak_is_that_of_the_step_in_units_of_a_billion_bytes(monkeypatch):
    forgotten, gpu = [], torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_500_000_000)
    gpu_memory.forget_peak(gpu)
    assert forgotten == [gpu]
    assert gpu_memory.peak(gpu) == {"peak_memory_gb": 2.5}
    assert gpu_memory.peak(torch.device("cpu")) == {}


def test_every_metric_stands_on_the_page():
    section = PAGE.read_text().split("### The metrics")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    named |= {f"completion_tokens{end}" for end in ("_p95", "_max") if f"`{end}`" in section}
    assert STEP_KEYS - {"step"} <= named
