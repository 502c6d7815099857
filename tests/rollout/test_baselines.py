"""The baselines emit what the engine emits, so that timing them against it compares the same work."""

from dataclasses import replace

import pytest
import torch

from bench.ops.baselines import Request, hf_generate, two_calls
from elastic import Budget, RolloutEngine, Sampling
from tests.rollout.small_models import make_model

PROMPTS = ["ab1+2=<think>", "c<think>", "hello00001+2<think>", "zz<think>", "k=4<think>"]
GREEDY = Sampling(temperature=0.0)


def requests(tokenizer, **options) -> list[Request]:
    limits = [(5, 4), (12, 1), (0, 9), (3, 20), (30, 6)]
    budgets = [Budget(t, s, **options) for t, s in limits]
    return [Request(tokenizer.encode(p), b) for p, b in zip(PROMPTS, budgets, strict=True)]


def completions(model, tokenizer, wanted: list[Request], sampling=GREEDY) -> list[list[int]]:
    engine = RolloutEngine(model, tokenizer, max_rows=3, eos_ids=[1, 30])
    batch = engine.generate([r.prompt for r in wanted], [r.budget for r in wanted], sampling=sampling)
    return [batch.tokens[row, : int(batch.lengths[row])].tolist() for row in range(len(batch))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch_rows", [2, 5])
@pytest.mark.parametrize(("method", "on_eos"), [(hf_generate, "stop"), (two_calls, "close")])
def test_greedy_baselines_equal_the_engine(tokenizer, seed, batch_rows, method, on_eos):
    model = make_model(seed=seed)
    for closing in (None, "so</think>ok"):
        wanted = requests(tokenizer, on_eos=on_eos, closing=closing)
        engine = RolloutEngine(model, tokenizer)
        got = method(
            model,
            wanted,
            engine.markers,
            GREEDY,
            batch_rows=batch_rows,
            eos_ids=[1, 30],
            tokenizer=tokenizer,
        )
        assert got == completions(model, tokenizer, wanted)


@pytest.mark.parametrize("method", [hf_generate, two_calls])
def test_baselines_sample_from_the_whole_vocabulary(tokenizer, method, monkeypatch):
    """`generate` silently applies top_k=50; with 51 logits one would be missing."""
    model = make_model()
    seen = []
    own = model.generate

    def spied(*args, **kwargs):
        seen.append(kwargs)
        return own(*args, **kwargs)

    monkeypatch.setattr(model, "generate", spied)
    torch.manual_seed(0)
    on_eos = "stop" if method is hf_generate else "close"
    markers = RolloutEngine(model, tokenizer).markers
    method(
        model,
        requests(tokenizer, on_eos=on_eos),
        markers,
        Sampling(temperature=0.9),
        batch_rows=5,
        eos_ids=[1],
    )
    for kwargs in seen:
        assert (kwargs["do_sample"], kwargs["temperature"], kwargs["top_k"], kwargs["top_p"]) == (
            True,
            0.9,
            0,
            1.0,
        )


def test_budgets_a_baseline_cannot_enforce_are_refused(model, tokenizer):
    markers = RolloutEngine(model, tokenizer).markers
    options = {"batch_rows": 2, "eos_ids": [1]}
    with pytest.raises(ValueError, match='on_eos="stop"'):
        hf_generate(model, [Request([5], Budget(3, 3))], markers, GREEDY, **options)
    with pytest.raises(ValueError, match="expected both limits"):
        hf_generate(model, [Request([5], Budget.unlimited(on_eos="stop"))], markers, GREEDY, **options)
    for budget in (
        Budget(3, None),
        Budget(3, 3, grace=2),
        Budget(3, 3, on_reclose="forbid"),
        Budget.vanilla(9),
    ):
        with pytest.raises(ValueError, match="thinking, solution and closing alone"):
            two_calls(model, [Request([5], budget)], markers, GREEDY, **options)
    several = replace(markers, ends=((9,),))
    with pytest.raises(ValueError, match="markers: two calls know the end marker alone"):
        two_calls(model, [Request([5], Budget(3, 3))], several, GREEDY, **options)
