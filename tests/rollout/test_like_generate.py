"""Sampled completions of the embedded model come as often from the engine as from `generate`."""

from collections import Counter

import pytest
import torch

import elastic.models.tiny
from elastic import Budget, RolloutEngine, Sampling

ROWS, TOKENS = 3000, 4


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer = elastic.models.tiny.load()
    return model, tokenizer, elastic.models.tiny.problems(1)[0].prompt


def up_to_eos(tokens: list[int], eos: int) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)


def by_generate(tiny, temperature: float, top_p: float, min_p: float) -> Counter:
    model, tokenizer, prompt = tiny
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    torch.manual_seed(0)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=top_p,
        min_p=min_p or None,
        num_return_sequences=ROWS,
        max_new_tokens=TOKENS,
    )
    return Counter(up_to_eos(row, tokenizer.eos_token_id) for row in out[:, ids.shape[1] :].tolist())


def by_engine(tiny, temperature: float, top_p: float, min_p: float) -> Counter:
    model, tokenizer, prompt = tiny
    engine = RolloutEngine(model, tokenizer, max_rows=ROWS, progress=False)
    budget = Budget.unlimited(on_eos="stop")
    sampling = Sampling(temperature, top_p=top_p, min_p=min_p, seed=5)
    batch = engine.generate([prompt], budget, ROWS, sampling, max_new_tokens=TOKENS)
    return Counter(up_to_eos(row, tokenizer.eos_token_id) for row in batch.tokens.tolist())


def misfit(a: Counter, b: Counter) -> float:
    """Two-sample chi-square of whole completions, in standard deviations; rare ones are one cell."""
    counts = torch.tensor([(a[key], b[key]) for key in a.keys() | b.keys()], dtype=torch.float64)
    rare = counts.sum(1) < 20
    counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    counts = counts[counts.sum(1) > 0]
    chi_square = float(((counts[:, 0] - counts[:, 1]) ** 2 / counts.sum(1)).sum())
    degrees = len(counts) - 1
    assert degrees > 5, "too few different completions to tell anything"
    return (chi_square - degrees) / (2 * degrees) ** 0.5


@pytest.mark.parametrize("filters", [(2.5, 1.0, 0.0), (3.0, 0.8, 0.0), (3.0, 1.0, 0.02)])
def test_completions_come_as_often_as_from_generate(tiny, filters):
    assert misfit(by_generate(tiny, *filters), by_engine(tiny, *filters)) < 5


def test_a_slightly_different_temperature_would_be_seen(tiny):
    assert misfit(by_generate(tiny, 2.5, 1.0, 0.0), by_engine(tiny, 2.1, 1.0, 0.0)) > 8
