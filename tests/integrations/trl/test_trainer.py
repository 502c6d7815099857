"""ElasticGRPOTrainer trains as GRPOTrainer does: same losses, gradients, metrics and weights."""

import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from trl import GRPOTrainer

from elastic import Budget
from elastic.integrations.trl import ElasticGRPOTrainer, elastic_rollout_func
from tests.integrations.trl.runs import build, logged, prepared, prompts, save_model, weights

BUDGET = Budget(thinking=8, solution=6)


def both(model, tmp_path, **options):
    """The two trainers after the same training, TRL's first."""
    trained = []
    for trainer_class in (GRPOTrainer, ElasticGRPOTrainer):
        rollouts = elastic_rollout_func(BUDGET)
        trainer = build(trainer_class, model, tmp_path, rollout_func=rollouts, **options)
        trainer.train()
        trained.append(trainer)
    return trained


def assert_same(theirs, ours, steps=2):
    told, expected = logged(ours), logged(theirs)
    assert len(told) >= steps
    for entry, other in zip(told, expected, strict=True):
        assert entry.keys() == other.keys()
        for name, value in other.items():
            assert entry[name] == pytest.approx(value, abs=2e-5, nan_ok=True), name
    assert max(entry.get("grad_norm", 0) for entry in expected) > 0.1
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"])
def test_every_loss_type_trains_as_trl_does(model_path, tmp_path, loss):
    assert_same(*both(model_path, tmp_path, loss_type=loss))


def test_ratios_of_rows_with_a_reference_and_several_steps_a_generation(model_path, tmp_path):
    options = {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.1}
    theirs, ours = both(model_path, tmp_path, num_iterations=2, epsilon=0.001, max_steps=3, **options)
    assert_same(theirs, ours, steps=3)
    assert any(entry["clip_ratio/region_mean"] > 0 for entry in logged(ours))
    assert any(entry["kl"] > 1e-6 for entry in logged(ours))


@pytest.mark.parametrize("loss", ["dapo", "bnpo"])
def test_accumulated_micro_batches_of_a_longer_generation(model_path, tmp_path, loss):
    """Steps per generation are no multiple of the accumulation, so TRL divides by a fraction of tokens."""
    options = {"steps_per_generation": 3, "gradient_accumulation_steps": 2, "loss_type": loss}
    assert_same(*both(model_path, tmp_path, per_device_train_batch_size=4, **options))


def test_a_reference_with_unweighted_kl_bounds_and_temperature(model_path, tmp_path):
    options = {"beta": 0.2, "use_bias_correction_kl": False, "temperature": 0.7, "num_iterations": 2}
    theirs, ours = both(model_path, tmp_path, delta=1.01, epsilon=0.001, epsilon_high=0.02, **options)
    assert_same(theirs, ours)


def test_high_entropy_tokens_and_the_off_policy_mask(model_path, tmp_path):
    options = {"top_entropy_quantile": 0.3, "off_policy_mask_threshold": 1e-4, "num_iterations": 2}
    plain = build(ElasticGRPOTrainer, model_path, tmp_path, rollout_func=elastic_rollout_func(BUDGET))
    plain.train()
    theirs, ours = both(model_path, tmp_path, beta=0.1, **options)
    assert_same(theirs, ours)
    assert (weights(ours) - weights(plain)).abs().max() > 1e-3


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dapo"])
def test_a_micro_batch_without_loss_tokens_has_a_loss_and_a_gradient_of_0(model_path, tmp_path, loss):
    """As where `mask_cut_solutions` leaves no row."""
    rollouts = elastic_rollout_func(BUDGET)
    trainer = build(ElasticGRPOTrainer, model_path, tmp_path, rollout_func=rollouts, loss_type=loss, beta=0.1)
    inputs = prepared(trainer)
    inputs |= {"tool_mask": torch.zeros_like(inputs["tool_mask"]), "num_items_in_batch": torch.tensor(0)}
    loss_value = trainer.compute_loss(trainer.model, inputs)
    loss_value.backward()
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert loss_value.item() == 0
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


def test_what_trls_loss_reads_is_read_or_refused_here():
    """An option that a later TRL's loss has would otherwise do nothing."""
    names = set(re.findall(r"self\.(?:args\.)?(\w+)", inspect.getsource(GRPOTrainer._compute_loss)))
    room = "".join(path.read_text() for path in Path(inspect.getfile(ElasticGRPOTrainer)).parent.glob("*.py"))
    unknown = {name for name in names if not re.search(rf"\b{name}\b", room)}
    # of vespo and of the entropy bonus, which are refused, and the logits that are not computed
    refused = re.compile(r"vespo_|get_gamma_weights|_?entropy_|_last_world_entropy|_get_per_token_logps")
    assert [name for name in unknown if not refused.match(name)] == []


def test_gradient_checkpointing_and_evaluations(model_path, tmp_path):
    options = {"eval_dataset": prompts(2), "eval_strategy": "steps", "eval_steps": 1, "loss_type": "bnpo"}
    theirs, ours = both(model_path, tmp_path, gradient_checkpointing=True, **options)
    assert_same(theirs, ours)
    assert any("eval_completions/thinking_tokens" in entry for entry in logged(ours))


def test_a_head_that_is_no_plain_linear_layer_gives_its_logits(model_path, tmp_path):
    theirs, ours = both(model_path, tmp_path, cast_lm_head_to_fp32=True)
    assert ours._head is None
    assert_same(theirs, ours)


@pytest.mark.parametrize(
    ("kind", "changes", "linear"),
    [
        ("qwen2", {"tie_word_embeddings": True}, True),
        ("gemma2", {"final_logit_softcapping": 3.0, "head_dim": 8}, True),
        ("granite", {"logits_scaling": 2.5}, False),
    ],
)
def test_heads_of_other_models(tmp_path, kind, changes, linear):
    """Tied to the embeddings, soft-capped, and scaled, which is no plain head."""
    theirs, ours = both(save_model(tmp_path / kind, kind, **changes), tmp_path)
    assert (ours._head is not None) == linear
    assert_same(theirs, ours)


def test_mixed_precision_takes_the_same_first_step(model_path, tmp_path):
    theirs, ours = both(model_path, tmp_path, bf16=True, max_steps=1)
    told, expected = logged(ours)[0], logged(theirs)[0]
    assert told["num_tokens"] == expected["num_tokens"]
    assert told["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.02)
    assert math.isclose(told["entropy"], expected["entropy"], rel_tol=0.01)


def test_rollouts_of_trl_itself(model_path, tmp_path):
    trained = []
    for trainer_class in (GRPOTrainer, ElasticGRPOTrainer):
        trainer = build(trainer_class, model_path, tmp_path)
        trainer.train()
        trained.append(trainer)
    assert_same(*trained)


def test_adapters_train_as_trl_trains_them(model_path, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    theirs, ours = both(model_path, tmp_path, peft_config=lora, beta=0.1, gradient_checkpointing=True)
    assert_same(theirs, ours)
