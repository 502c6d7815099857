"""README's Python runs as printed, on the embedded model in the place of the reader's."""

import re
from itertools import cycle
from pathlib import Path

import pytest
import torch

import elastic
import elastic.rewards
from elastic.models import tiny

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the blocks leave behind, run one after the other."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elastic, "load_model", lambda path: tiny.load(), raising=False)
        verdicts = cycle((1.0, 0.0))  # this model knows no primes: it would get 0 everywhere, and no gradient
        patch.setattr(elastic.rewards, "math_reward", lambda response, answer: next(verdicts))
        for block in BLOCKS:
            exec(compile(block, str(README), "exec"), names)
    return names


def test_the_first_block_gives_completions_within_their_budget(names):
    batch = names["batch"]
    assert len(batch) == 8
    assert batch.thinking_tokens.max() <= 512
    assert batch.solution_tokens.max() <= 256
    assert batch.thinking_tokens.max() > 0


def test_the_loop_sees_the_logprobs_of_the_rollout_and_leaves_gradients(names):
    batch, out, kept = names["batch"], names["out"], names["kept"]
    sampled = batch.sampled[kept]
    expected = batch.full_logprobs[kept][sampled]
    torch.testing.assert_close(out.logprobs[sampled], expected, rtol=1e-4, atol=1e-4)
    assert len(out.logprobs) == int(batch.lengths.sum())
    assert all(weight.grad.abs().sum() > 0 for weight in names["model"].parameters())
