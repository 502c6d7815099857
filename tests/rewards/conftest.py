"""Processes for math-verify that are the tests' own."""

from collections.abc import Iterator
from functools import partial

import pytest

from elastic.rewards import judge
from elastic.rewards.judge import Workers
from elastic.rewards.worker import Worker


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """At most two, of 0.5 s a pair; no answer is known yet."""
    with monkeypatch.context() as patch:
        patch.setattr(judge, "Worker", partial(Worker, seconds=0.5))
        workers = Workers(2)
    monkeypatch.setattr(judge, "_workers", workers)
    judge._pair.cache_clear()
    yield workers
    workers.close()
    judge._pair.cache_clear()
