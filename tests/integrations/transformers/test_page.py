"""The examples of docs/transformers.md run as printed and keep their budgets."""

import pytest

from tests.integrations import pages


@pytest.fixture(scope="module")
def names():
    return pages.run("transformers.md")


def test_each_row_of_the_processors_example_keeps_its_own_budget(names):
    batch = names["processor"].batch
    assert (batch.thinking_tokens <= batch.thinking_tokens.new_tensor([32, 8])).all()
    assert (batch.solution_tokens <= batch.solution_tokens.new_tensor([16, 24])).all()
    assert batch.thinking_tokens.min() > 0
    assert batch.thinking_cut[1]
    assert batch.solution(0)


def test_the_engines_example_has_four_rows_a_prompt(names):
    batch = names["custom"].batch
    assert len(names["sequences"]) == len(batch) == 8
    assert batch.thinking_tokens.max() <= 32
    assert batch.solution_tokens.max() <= 16
