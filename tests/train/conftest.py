"""Fixtures over the random model of `tiny_run`."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from elastic.models.tiny.vocabulary import build_tokenizer
from tests.train.tiny_run import build_config, build_model

_MODEL = build_model()


@pytest.fixture
def model() -> Any:
    return copy.deepcopy(_MODEL)


@pytest.fixture
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture
def own_accelerate_state():
    """Accelerate keeps one precision per process; what a test sets must not reach the next one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def make_config(tmp_path: Path):
    """`tiny_run.build_config` with an output directory of its own."""
    return partial(build_config, tmp_path / "run")
