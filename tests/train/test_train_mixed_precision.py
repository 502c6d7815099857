"""Mixed precision: float32 weights for the optimizer, 16-bit ones for the rollouts, one model in both."""

import torch
from transformers import LlamaForCausalLM

from elastic.budget import Budget
from elastic.models.rollout_model import RolloutModel
from elastic.models.tiny.vocabulary import IDS
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.run.accelerator import build_accelerator
from elastic.train.update.policy import Policy
from tests.train.tiny_run import build_config, build_model

POSITIONS = 2048


def attentive_model():
    """Scores far enough apart that attention depends on exact positions, as a trained model's does."""
    return build_model(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )


def test_recomputed_logprobs_are_the_rollouts_up_to_2048_positions(tmp_path, tokenizer, own_accelerate_state):
    model, accelerator = (
        attentive_model(),
        build_accelerator(build_config(tmp_path, train={"mixed_precision": "bf16"})),
    )
    rollouts = RolloutModel(model, "bf16")
    rollouts.sync()
    assert rollouts.module.dtype == torch.bfloat16
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(len(IDS), (2, POSITIONS - 16), generator=generator).tolist()
    prompts = [[*row[:-1], IDS["<think>"]] for row in words]
    engine = RolloutEngine(rollouts.module, tokenizer, max_rows=16)
    batch = engine.generate(prompts, Budget(8, 7), 8, Sampling(1.0, seed=2), progress=False)
    experience = Experience.from_rollout(batch, torch.ones(len(batch)))
    policy = Policy(model, accelerator, LossConfig(), temperature=1.0, max_length=None)
    mask = torch.cat(experience.mask)
    recomputed, old = (torch.cat(rows) for rows in (policy.logprobs(experience), experience.old_logprobs))
    ratios = (recomputed - old)[mask].exp()
    assert len(ratios) > 150
    outside = ((ratios < 0.8) | (ratios > 1.2)).float().mean().item()
    assert outside < 0.05


def test_only_parameters_are_rounded_and_buffers_follow_the_trained_model():
    model = build_model()
    model.model.register_buffer("running", torch.tensor([1 / 3]))
    rollouts = RolloutModel(model, "bf16")
    copied, trained = (dict(m.named_buffers()) for m in (rollouts.module, model))
    assert {"model.rotary_emb.inv_freq", "model.running"} <= copied.keys() == trained.keys()
    assert all(torch.equal(copied[name], trained[name]) for name in trained)
    assert all(p.dtype == torch.bfloat16 for p in rollouts.module.parameters())
    with torch.no_grad():
        model.model.running.fill_(2 / 3)
        model.model.norm.weight.fill_(1.5)
    rollouts.sync()
    assert rollouts.module.model.running.item() == torch.tensor(2 / 3).item()
    assert (rollouts.module.model.norm.weight == 1.5).all()


def test_weights_that_a_model_keeps_in_float32_stay_so():
    class KeepsItsNorms(LlamaForCausalLM):
        _keep_in_fp32_modules_strict = ("layers.*.input_layernorm",)

    model = KeepsItsNorms(build_model().config)
    copied = RolloutModel(model, "bf16").module
    float32 = {name for name, p in copied.named_parameters() if p.dtype == torch.float32}
    assert float32 == {f"model.layers.{layer}.input_layernorm.weight" for layer in range(2)}


def test_without_mixed_precision_rollouts_run_on_the_trained_model():
    model = build_model()
    assert RolloutModel(model, "no").module is model
