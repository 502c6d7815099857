"""One sampling per row: each row is what it is under its own sampling alone."""

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.rollout.record.batch import TENSOR_FIELDS
from elastic.sampling import row_seeds
from tests.rollout.calls import assert_same, mixed_budgets

PROMPTS = ["ab1+2=<think>", "c<think>", "hello<think>\n"]
KINDS = [
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.0, seed=4),
    Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.05, seed=5),
    Sampling(temperature=1.5, top_k=12, seed=5),
]
ARGUMENTS = {"samples_per_prompt": 4, "max_new_tokens": 90, "budget": mixed_budgets(12, 2)}


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    return RolloutEngine(model, tokenizer, max_rows=5)


@pytest.mark.parametrize("max_rows", [1, 5, 12])
def test_a_row_under_its_own_sampling_is_that_row_of_a_call_with_it(model, tokenizer, max_rows):
    engine = RolloutEngine(model, tokenizer, max_rows=max_rows)
    batch = engine.generate(PROMPTS, sampling=KINDS * 3, **ARGUMENTS)
    for kind, sampling in enumerate(KINDS):
        alone = engine.generate(PROMPTS, sampling=sampling, **ARGUMENTS)
        for row in range(kind, 12, 4):
            length = int(alone.lengths[row])
            assert batch.tokens[row, :length].tolist() == alone.tokens[row, :length].tolist()
            assert int(batch.seeds[row]) == row_seeds(sampling.seed, 12)[row] == int(alone.seeds[row])
            for name in ("lengths", "finish_reason", "thinking_tokens", "solution_tokens"):
                assert getattr(batch, name)[row] == getattr(alone, name)[row]
            torch.testing.assert_close(
                batch.logprobs[row, :length], alone.logprobs[row, :length], atol=2e-6, rtol=0
            )
    assert batch.run_seed is None  # there are several


def test_equal_samplings_are_one(engine):
    expected = engine.generate(PROMPTS, sampling=KINDS[2], **ARGUMENTS)
    assert_same(engine.generate(PROMPTS, sampling=[KINDS[2]] * 12, **ARGUMENTS), expected, TENSOR_FIELDS)
    batch = engine.generate(PROMPTS, sampling=[KINDS[2]] * 3, **ARGUMENTS)
    assert_same(batch, expected, TENSOR_FIELDS)
    assert batch.run_seed == 5


def test_one_a_prompt_is_that_of_its_samples(engine):
    batch = engine.generate(PROMPTS, sampling=KINDS[:3], **ARGUMENTS)
    rows = [kind for kind in KINDS[:3] for _ in range(4)]
    assert_same(batch, engine.generate(PROMPTS, sampling=rows, **ARGUMENTS), TENSOR_FIELDS)
    greedy = batch.tokens[4:8]
    assert int(batch.seeds[4]) == row_seeds(4, 12)[4]
    assert not batch.logprobs[4:8].any()  # temperature 0
    assert greedy.shape[0] == 4


def test_samplings_without_a_seed_share_one_that_is_drawn(engine):
    unseeded = [Sampling(temperature=1.0), Sampling(temperature=0.5), Sampling(temperature=1.0, top_k=3)]
    batch = engine.generate(PROMPTS, sampling=unseeded, **ARGUMENTS)
    assert batch.seeds.tolist() == row_seeds(batch.run_seed, 12)
    assert engine.generate(PROMPTS, sampling=unseeded, **ARGUMENTS).run_seed != batch.run_seed
    mixed = engine.generate(PROMPTS, sampling=[KINDS[0], *unseeded[1:]], **ARGUMENTS)
    assert mixed.run_seed is None
    assert mixed.seeds[:4].tolist() == row_seeds(3, 12)[:4]


@pytest.mark.parametrize(
    ("sampling", "error", "message"),
    [
        ([KINDS[0]] * 5, ValueError, r"sampling: expected 3 \(one per prompt\) or 12 \(one per row\), got 5"),
        ([], ValueError, r"sampling: expected 3 \(one per prompt\) or 12 \(one per row\), got 0"),
        ([KINDS[0], 0.6, KINDS[1]], TypeError, "sampling: expected a Sampling or a list of them"),
    ],
)
def test_wrong_lists_are_refused_by_name(engine, sampling, error, message):
    with pytest.raises(error, match=message):
        engine.generate(PROMPTS, Budget(2, 2), 4, sampling)
