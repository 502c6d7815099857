"""Rollouts by a vLLM server: what it is asked for, what comes back, and which servers are refused."""

import math

import pytest
import torch
from trl import GRPOTrainer

from elastic import Budget
from elastic.integrations.trl import ElasticGRPOTrainer, elastic_rollout_func
from tests.integrations.trl.runs import build, logged, prepared, prompts, weights
from tests.integrations.trl.server import connect

BUDGET = Budget(thinking=8, solution=6)


def server_trainer(model_path, tmp_path, trainer_class=GRPOTrainer, budget=BUDGET, client=None, **options):
    draw = {
        name: options.pop(name) for name in list(options) if name.endswith(("_low", "_column", "markers"))
    }
    rollouts = elastic_rollout_func(budget, **draw)
    trainer = build(trainer_class, model_path, tmp_path, rollout_func=rollouts, **options)
    return trainer, connect(trainer, **(client or {}))


def test_a_group_is_one_request_with_its_budget_seed_and_room_for_the_end(model_path, tmp_path):
    trainer, client = server_trainer(model_path, tmp_path, thinking_low=2)
    prepared(trainer)
    assert len(client.requests) == 2
    first, second = client.requests
    assert first["seed"] != second["seed"]
    for request in client.requests:
        thinking = request["vllm_xargs"]["thinking_budget"]
        assert 2 <= thinking <= 8
        assert request["vllm_xargs"]["solution_budget"] == 6
        assert request["max_tokens"] == thinking + 1 + 6 + 1  # the end marker, and the EOS that ends the row


def test_forced_tokens_and_the_end_of_a_spent_row_carry_no_loss(model_path, tmp_path):
    trainer, _ = server_trainer(model_path, tmp_path)
    inputs = prepared(trainer)
    end = trainer._tokenizer.convert_tokens_to_ids("</think>")
    cut = 0
    for ids, kept, mask in zip(
        inputs["completion_ids"].tolist(),
        inputs["completion_mask"].tolist(),
        inputs["tool_mask"].tolist(),
        strict=True,
    ):
        row = ids[: sum(kept)]
        if len(row) == 8 + 1 + 6:
            cut += 1
            assert row[8] == end
            assert mask[: len(row)] == [1] * 8 + [0] + [1] * 6
    assert cut > 0


@pytest.mark.parametrize("mode", ["token_mask", "sequence_truncate"])
def test_importance_sampling_corrections_are_trls(model_path, tmp_path, mode):
    trained = []
    options = {"vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_max": 1.02}
    for trainer_class in (GRPOTrainer, ElasticGRPOTrainer):
        trainer, _ = server_trainer(
            model_path, tmp_path, trainer_class, client={"mismatch": -0.01}, beta=0.1, max_steps=1, **options
        )
        trainer.train()
        trained.append(trainer)
    theirs, ours = trained
    assert logged(theirs)[0].keys() == logged(ours)[0].keys()
    for name, value in logged(theirs)[0].items():
        assert logged(ours)[0][name] == pytest.approx(value, abs=2e-5), name
    assert logged(ours)[0]["sampling/importance_sampling_ratio/mean"] != 1
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=1e-6)


def test_without_comparable_logprobs_a_correction_is_refused(model_path, tmp_path):
    for client, options in (({"logprobs_mode": "processed_logprobs"}, {}), ({}, {"temperature": 0.7})):
        trainer, _ = server_trainer(model_path, tmp_path, client=client, **options)
        with pytest.raises(ValueError, match=r"vllm_importance_sampling_correction: needs .* raw_logprobs"):
            prepared(trainer)


def test_without_a_correction_the_server_s_logprobs_are_unknown(model_path, tmp_path):
    options = {"vllm_importance_sampling_correction": False, "temperature": 0.7}
    trainer, _ = server_trainer(model_path, tmp_path, **options)
    inputs = prepared(trainer)
    counted = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
    assert inputs["sampling_per_token_logps"][counted].isnan().all()
    assert not math.isnan(trainer.compute_loss(trainer.model, inputs).item())


def test_a_server_without_budgets_is_refused(model_path, tmp_path):
    trainer, client = server_trainer(model_path, tmp_path, client={"logits_processors": None})
    with pytest.raises(ValueError, match=r"--logits-processors elastic\.integrations\.vllm:ElasticBudgets"):
        prepared(trainer)
    assert not client.requests


def test_a_completion_beyond_its_budget_is_an_error(model_path, tmp_path, monkeypatch):
    trainer, client = server_trainer(model_path, tmp_path)
    answer = client.generate

    def with_another_budget(generation_kwargs, **request):
        values = {**generation_kwargs["vllm_xargs"], "thinking_budget": 9}
        changed = {**generation_kwargs, "vllm_xargs": values, "max_tokens": 17}
        return answer(generation_kwargs=changed, **request)

    monkeypatch.setattr(client, "generate", with_another_budget)
    with pytest.raises(RuntimeError, match="does not keep to its budget: tokens: row"):
        prepared(trainer)


def test_a_budget_that_completions_cannot_hold_is_refused(model_path, tmp_path):
    trainer, _ = server_trainer(model_path, tmp_path, max_completion_length=14)
    with pytest.raises(
        ValueError, match=r"max_completion_length: expected at least the 15 tokens of .*got 14"
    ):
        prepared(trainer)


def test_budgets_of_a_column_reach_the_server(model_path, tmp_path):
    dataset = prompts(6, t=[1, 2, 3, 4, 5, 6])
    trainer, client = server_trainer(model_path, tmp_path, thinking_column="t", train_dataset=dataset)
    inputs = prepared(trainer)
    asked = {request["vllm_xargs"]["thinking_budget"] for request in client.requests}
    assert len(asked) == 2
    assert asked <= set(range(1, 7))
    assert inputs["completion_ids"].shape[1] <= max(asked) + 1 + 6
