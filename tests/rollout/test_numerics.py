"""The engine's tokens and logprobs are the model's: rescoring, greedy decoding, frequencies."""

import pytest
import torch

from elastic import Budget, FinishReason, Phase, RolloutEngine, Sampling
from tests.rollout.calls import HOT, PROMPTS, mixed_budgets
from tests.rollout.small_models import biased, make_model


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1.0, seed=0), Sampling(temperature=0.7, top_k=9, top_p=0.9, seed=1)]
)
def test_rollout_logprobs_equal_those_of_a_rescoring_forward(tokenizer, family, sampling):
    model = make_model(family, seed=5)
    batch = RolloutEngine(model, tokenizer, max_rows=10).generate(
        PROMPTS, mixed_budgets(24, 7), 4, sampling, max_new_tokens=90
    )
    for row in range(len(batch)):
        prompt, length = batch.prompt(row), int(batch.lengths[row])
        tokens = batch.tokens[row, :length]
        ids = torch.cat([torch.tensor(prompt), tokens])[None]
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        scored = (logits / sampling.temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        sampled = batch.sampled[row, :length]
        got = batch.full_logprobs[row, :length]
        torch.testing.assert_close(got[sampled], scored[sampled], atol=2e-6, rtol=0)
        assert not got[~sampled].any()
        assert not batch.logprobs[row, :length][~sampled].any()
        if not sampling.filters and (batch.phase[row] != Phase.SOLUTION).all():
            assert torch.equal(batch.logprobs[row], batch.full_logprobs[row])


def test_forbidding_to_reopen_changes_logprobs_but_not_full_logprobs(tokenizer):
    """The mask takes the start marker out of the sampling distribution; a rescoring forward has no mask."""
    model = biased(2, 2, 4.0)  # likes the start marker
    budget = Budget(thinking=2, solution=40, on_reopen="forbid")
    batch = RolloutEngine(model, tokenizer).generate(["ab<think>"], budget, 8, HOT)
    solution = batch.sampled & (batch.phase == Phase.SOLUTION)
    assert not (batch.tokens[solution] == 2).any()
    assert (batch.logprobs[solution] > batch.full_logprobs[solution]).all()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_greedy_equals_hugging_face_generate(tokenizer, family):
    model = make_model(family, seed=4)
    prompts = ["ab1+2=", "c", "hello0000", "x=y+z-3"]
    engine = RolloutEngine(model, tokenizer, max_rows=3, eos_ids=[1, 40])
    budget = Budget.unlimited(on_eos="stop")
    batch = engine.generate(prompts, budget, sampling=Sampling(temperature=0.0), max_new_tokens=60)
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([tokenizer.encode(prompt)])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=60, eos_token_id=[1, 40]
        )
        new = out[0, ids.shape[1] :]
        assert torch.equal(batch.tokens[row, : int(batch.lengths[row])], new)
        ended = new[-1].item() in (1, 40)
        assert int(batch.finish_reason[row]) == (FinishReason.STOP if ended else FinishReason.LENGTH)


def test_tokens_come_as_often_as_the_model_says(model, tokenizer):
    """Rows differ in their seeds only, so this also tests that derived seeds behave like random ones."""
    engine = RolloutEngine(model, tokenizer, max_rows=1000)
    batch = engine.generate(["ab<think>"], Budget.vanilla(2), 4000, Sampling(temperature=1.3, seed=1))
    ids = torch.tensor(batch.prompts)
    with torch.no_grad():
        first = (model(ids).logits[0, -1] / 1.3).softmax(-1)
        every = torch.arange(len(first))
        after = torch.cat([ids.expand(len(first), -1), every[:, None]], dim=1)
        second = (model(after).logits[:, -1] / 1.3).softmax(-1)
    alive = every != tokenizer.eos_token_id
    went_on = batch.lengths > 1
    for tokens, expected in (
        (batch.tokens[:, 0], first),
        (batch.tokens[went_on, 1], first[alive] @ second[alive] / first[alive].sum()),
    ):
        wanted = expected * len(tokens)
        seen = torch.bincount(tokens, minlength=len(first))
        assert float(((seen - wanted) ** 2 / wanted).sum()) < 95  # 50 degrees of freedom: p < 1e-4
