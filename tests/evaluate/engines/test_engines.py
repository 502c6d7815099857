"""`generate` of transformers under budgets gives the own engine's rows."""

import pytest
import torch

from elastic.budget import Budget
from elastic.evaluate.engines import engine_name, open_engine
from elastic.models import tiny
from elastic.sampling import Sampling

FIELDS = (
    *("tokens", "source", "phase", "lengths", "thinking_tokens", "solution_tokens", "thinking_cut"),
    *("finish_reason", "initial_phase", "seeds", "prompt_index"),
)
PROMPTS = [problem.prompt for problem in tiny.problems(7, 3, "test")]  # of several lengths: left padding


@pytest.fixture(scope="module")
def model():
    return tiny.load()


def rows(name: str, model, max_rows: int, budget, sampling, max_new_tokens=None, **options):
    engine = open_engine(name, *model, max_rows=max_rows)
    return engine.generate(
        PROMPTS, budget, samples_per_prompt=2, sampling=sampling, max_new_tokens=max_new_tokens, **options
    )


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0, seed=1), Sampling(1.0, seed=1), Sampling(1.4, top_k=20, top_p=0.9, min_p=0.01, seed=2)],
    ids=["greedy", "sampled", "filtered"],
)
@pytest.mark.parametrize(
    ("budget", "max_new_tokens"),
    [
        (Budget(8, 24), None),
        (Budget(0, 4), None),
        (
            Budget(12, 24, closing="{end} answer is", min_thinking=8, max_extensions=2, extension="wait :"),
            None,
        ),
        (Budget(16, None, grace=4, boundary=".", notices=((4, "we have"),)), 40),
        (Budget.vanilla(20), None),
        (Budget.unlimited(), 60),
    ],
    ids=["cut", "no thought", "s1", "grace and notice", "vanilla", "unlimited"],
)
def test_rows_are_those_of_the_own_engine(model, budget, max_new_tokens, sampling) -> None:
    own = rows("own", model, 14, budget, sampling, max_new_tokens)
    other = rows("hf", model, 5, budget, sampling, max_new_tokens)
    for name in FIELDS:
        assert torch.equal(getattr(own, name), getattr(other, name)), name
    torch.testing.assert_close(own.logprobs, other.logprobs, atol=1e-3, rtol=0)
    assert own.text(3) == other.text(3)


def test_kept_sets_are_refused_and_not_left_out(model) -> None:
    sampling = Sampling(1.0, top_k=20, most_kept=20)
    with pytest.raises(ValueError, match="most_kept: expected 0: RolloutEngine and VLLMEngine alone"):
        rows("hf", model, 5, Budget(2, 2), sampling)
    assert rows("own", model, 5, Budget(2, 2), sampling).kept is not None


def test_rows_end_naturally_by_eos_and_by_budgets_in_what_was_compared(model) -> None:
    """The comparison above would say little about rows that all end alike."""
    reasons = set(rows("hf", model, 14, Budget(40, 6), Sampling(1.0, seed=1)).finish_reason.tolist())
    cuts = rows("hf", model, 14, Budget(40, 6), Sampling(1.0, seed=1)).thinking_cut
    assert len(reasons) > 1
    assert 0 < int(cuts.sum()) < len(cuts)


def test_budgets_samplings_and_phases_may_differ_from_prompt_to_prompt(model) -> None:
    budgets = [Budget(4 * k, 6) for k in range(7)]
    samplings = [Sampling(0.5 + k / 5, seed=9) for k in range(7)]
    phases = ["thinking", "solution", *["thinking"] * 5]
    own, other = (rows(name, model, 4, budgets, samplings, phase=phases) for name in ("own", "hf"))
    for name in FIELDS:
        assert torch.equal(getattr(own, name), getattr(other, name)), name


def test_the_models_own_generation_config_is_not_applied_and_comes_back(model) -> None:
    net = model[0]
    expected = rows("hf", model, 14, Budget(8, 8), Sampling(1.0, seed=1))
    own = net.generation_config
    net.generation_config = type(own)(repetition_penalty=5.0, eos_token_id=3, top_k=1, do_sample=True)
    try:
        changed = net.generation_config
        found = rows("hf", model, 14, Budget(8, 8), Sampling(1.0, seed=1))
        assert net.generation_config is changed
    finally:
        net.generation_config = own
    assert torch.equal(found.tokens, expected.tokens)


def test_logits_that_are_no_numbers_name_the_row(model) -> None:
    net, tokenizer = tiny.load()
    net.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="row"):
        rows("hf", (net, tokenizer), 14, Budget(8, 8), Sampling(1.0, seed=1))


def test_rows_that_do_not_fit_the_memory_name_their_number(monkeypatch, model) -> None:
    def short(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model[0], "generate", short)
    with pytest.raises(MemoryError, match="max_rows: 5 rows at a time need more memory"):
        rows("hf", model, 5, Budget(8, 8), Sampling(1.0, seed=1))


def test_engines_are_opened_by_name(model) -> None:
    for name in ("own", "hf"):
        assert engine_name(open_engine(name, *model)) == name
    with pytest.raises(ValueError, match="engine: expected one of own, hf, vllm, got 'sglang'"):
        open_engine("sglang", *model)


def test_rows_of_a_call_are_counted_from_one(model) -> None:
    with pytest.raises(ValueError, match="max_rows: expected an integer from 1, got 0"):
        open_engine("hf", *model, max_rows=0)
