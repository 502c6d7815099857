"""Updates run the policy that sampled: without dropout, in whatever mode the model comes."""

import json
import warnings

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from elastic.budget import Budget
from elastic.models.modes import as_in_rollouts, dropout_of
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import IDS
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.run.accelerator import build_accelerator
from elastic.train.update.policy import Policy
from elastic.train.update.stats import UpdateStats
from tests.train.tiny_run import build_config, build_model, run


def build_opt():
    """Rates that modules give to functions, in checkpointed layers too, and layers left out at random."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(IDS),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        dropout=0.5,
        attention_dropout=0.25,
        layerdrop=0.4,
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
        pad_token_id=IDS["<pad>"],
    )
    return OPTForCausalLM(config)


MODELS = {"llama": lambda: build_model(attention_dropout=0.5), "opt": build_opt}


@pytest.mark.filterwarnings("ignore:the model has dropout")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_policy_does_not_differ_from_itself_before_an_update(tmp_path, kind, checkpointing):
    config = build_config(
        tmp_path,
        train={"steps": 1},
        loss={"kl_coef": 0.01, "old_logprobs": "recompute"},
        model={"gradient_checkpointing": checkpointing},
    )
    run(config, model=MODELS[kind]().train())  # fresh from from_config, say: in training mode
    (record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert record["kl"] == pytest.approx(0, abs=1e-6)
    assert record["clip_fraction"] == 0


def experience_of(model, tokenizer):
    engine = RolloutEngine(model, tokenizer, max_rows=8)
    prompts = [problem.prompt for problem in problems(2)]
    batch = engine.generate(prompts, Budget(3, 4), 4, Sampling(1.0, seed=3), progress=False)
    return Experience.from_rollout(batch, torch.linspace(-1, 1, len(batch)))


def policy_of(model, accelerator):
    return Policy(model, accelerator, LossConfig(), temperature=1.0, max_length=None)


def gradient(policy, experience):
    policy.model.zero_grad()
    policy.backward(experience, experience.loss_tokens, len(experience), UpdateStats())
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()])


def test_checkpointed_layers_run_again_without_dropout(tmp_path, tokenizer):
    model, accelerator = build_opt().eval(), build_accelerator(build_config(tmp_path))
    experience = experience_of(model, tokenizer)
    plain = gradient(policy_of(model, accelerator), experience)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    model.model.decoder.layers[0].fc1.register_forward_hook(lambda *_: calls.append(1))
    policy = policy_of(model, accelerator)
    calls.clear()  # of the checks that a policy starts with
    checkpointed = gradient(policy, experience)
    assert len(calls) == 2
    assert torch.equal(checkpointed, plain)


def test_every_module_gets_its_own_mode_and_rate_back(tmp_path, tokenizer):
    model, accelerator = build_opt(), build_accelerator(build_config(tmp_path))
    experience = experience_of(model, tokenizer)
    model.train()
    model.model.decoder.layers[1].eval()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    modes = {name: module.training for name, module in model.named_modules()}
    rates = dropout_of(model)
    gradient(policy_of(model, accelerator), experience)
    with pytest.raises(KeyboardInterrupt), as_in_rollouts(model):
        raise KeyboardInterrupt
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert dropout_of(model) == rates == {"dropout": 0.5, "layerdrop": 0.4}


def test_a_model_with_dropout_is_named_once(tmp_path):
    with pytest.warns(
        UserWarning, match=r"the model has dropout \(attention_dropout 0\.1\); .* without it"
    ) as seen:
        run(build_config(tmp_path, train={"steps": 2}), model=build_model(attention_dropout=0.1))
    assert len([warning for warning in seen if "dropout" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(build_config(tmp_path / "none", train={"steps": 1}))
