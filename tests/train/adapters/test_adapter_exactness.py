"""The engine, the KL and the head see what an adapted model computes, in each precision."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.models.adapter import adapter_off
from elastic.models.head import LinearHead
from elastic.models.modes import recompute_activations
from elastic.models.rollout_model import RolloutModel
from elastic.models.serving import exclusive
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.run.accelerator import build_accelerator
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.reference import Reference
from elastic.train.update.stats import UpdateStats
from tests.train.adapters.runs import adapted, lora_config, prompts
from tests.train.tiny_run import build_config, build_model, lines, run


def experience_of(model, tokenizer, **sampling):
    """A rollout of two rows for each of three prompts, with rewards that differ."""
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    batch = engine.generate(prompts(), Budget(6, 5), 2, Sampling(1.0, seed=3, **sampling), progress=False)
    return Experience.from_rollout(batch, torch.tensor([1.0, -1.0] * 3))


def policy_of(model, tmp_path, linear="auto", precision="no"):
    accelerator = build_accelerator(build_config(tmp_path, train={"mixed_precision": precision}))
    model = accelerator.prepare(model) if precision != "no" else model  # puts autocast around its forward
    return Policy(model, accelerator, LossConfig(linear=linear), temperature=1.0, max_length=None)


def gradients(model, experience, tmp_path, **options):
    """Name -> gradient of the trained parameters."""
    model.zero_grad()
    policy_of(model, tmp_path, **options).backward(
        experience, experience.loss_tokens, experience.loss_rows, UpdateStats()
    )
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def sampled(experience, values):
    """The values of the sampled tokens."""
    return torch.cat(values)[torch.cat(experience.mask)]


def products_seen(model, experience, tmp_path, **options):
    """The dtypes that the first base module and the first A return in an update."""
    seen = {}
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    parts = {"base": layer.base_layer, "adapter": layer.lora_A["default"], "sum": layer}
    handles = [
        part.register_forward_hook(lambda *call, name=name: seen.update({name: call[-1].dtype}))
        for name, part in parts.items()
    ]
    found = gradients(model, experience, tmp_path, **options)
    for handle in handles:
        handle.remove()
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    return seen


@pytest.mark.parametrize(
    ("base", "precision", "adapter"),
    [
        (torch.float32, "no", torch.float32),
        (torch.bfloat16, "no", torch.float32),
        (torch.bfloat16, "bf16", torch.bfloat16),
        (torch.float32, "bf16", torch.bfloat16),
    ],
)
def test_the_base_computes_in_its_dtype_and_the_adapter_in_float32_without_autocast(
    tmp_path, tokenizer, base, precision, adapter, own_accelerate_state
):
    model = adapted(build_model().to(base), fill=0.05)
    experience = experience_of(RolloutModel(model, precision).module, tokenizer)
    seen = products_seen(model, experience, tmp_path, precision=precision)
    computed = torch.bfloat16 if precision == "bf16" else base
    assert seen == {"base": computed, "adapter": adapter, "sum": computed}


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_updates_compute_the_policy_that_was_sampled(tmp_path, tokenizer, base, checkpointing):
    model = adapted(build_model().to(base), fill=0.1)
    if checkpointing:
        recompute_activations(model)
    experience = experience_of(model, tokenizer)
    recomputed = sampled(experience, policy_of(model, tmp_path).logprobs(experience))
    old = sampled(experience, experience.old_logprobs)
    torch.testing.assert_close(recomputed, old, atol=2e-5 if base == torch.float32 else 0.05, rtol=0)


def test_rows_are_packed_and_gradients_are_those_of_rows_alone(tmp_path, tokenizer):
    model = adapted(fill=0.1)
    assert packs(model)
    experience = experience_of(model, tokenizer)
    together = gradients(model, experience, tmp_path)
    alone = {name: torch.zeros_like(gradient) for name, gradient in together.items()}
    for row in range(len(experience.completions)):
        part = experience.select([row])
        model.zero_grad()
        policy_of(model, tmp_path).backward(part, experience.loss_tokens, experience.loss_rows, UpdateStats())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                alone[name] += parameter.grad
    for name, gradient in together.items():
        assert gradient.any(), name
        torch.testing.assert_close(gradient, alone[name], atol=1e-6, rtol=1e-4)


def test_gradient_checkpointing_leaves_the_adapters_gradients_as_they_are(tmp_path, tokenizer):
    model = adapted(fill=0.1)
    experience = experience_of(model, tokenizer)
    kept = gradients(model, experience, tmp_path)
    recompute_activations(model)
    calls = []
    mlp = model.base_model.model.model.layers[1].mlp
    handle = mlp.register_forward_hook(lambda *_: calls.append(1))
    recomputed = gradients(model, experience, tmp_path)
    handle.remove()
    assert len(calls) == 2, "the layer's forward ran once more in the backward pass"
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-7, rtol=1e-5)


def test_the_reference_is_the_adapter_off_and_no_copy(tmp_path, tokenizer):
    model = adapted()
    reference, policy = Reference(model), policy_of(model, tmp_path)
    assert reference.module is None
    assert not list(reference.tensors)
    experience = experience_of(model, tokenizer)
    first = policy.logprobs(experience)
    assert all(map(torch.equal, reference.logprobs(policy, experience), first))  # KL exactly 0
    next(p for p in model.parameters() if p.requires_grad).requires_grad_(
        False
    )  # part of the adapter, frozen
    flags = [parameter.requires_grad for parameter in model.parameters()]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert all(map(torch.equal, reference.logprobs(policy, experience), first))
    assert not any(map(torch.equal, policy.logprobs(experience), first))
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_the_reference_of_an_adapter_trained_before_is_where_it_started(tmp_path, tokenizer):
    model = adapted(fill=0.1)
    reference, policy = Reference(model), policy_of(model, tmp_path)
    experience = experience_of(model, tokenizer)
    first = policy.logprobs(experience)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    moved = policy.logprobs(experience)
    assert all(map(torch.equal, reference.logprobs(policy, experience), first))
    assert all(map(torch.equal, policy.logprobs(experience), moved))
    assert not any(map(torch.equal, moved, first))
    with adapter_off(model):
        assert not any(map(torch.equal, policy.logprobs(experience), first))


@pytest.mark.parametrize("options", [{"modules_to_save": ["norm"]}, {"bias": "all"}, {"use_dora": True}])
def test_adapters_that_train_more_than_additions_start_with_a_kl_of_zero(tmp_path, options):
    model = build_model(attention_bias=True)
    config = build_config(tmp_path, loss={"kl_coef": 0.1}, train={"steps": 2})
    run(config, model=adapted(model, **options))
    first, second = (line["kl"] for line in lines(tmp_path / "metrics.jsonl"))
    assert first == 0 < second


def test_the_kl_of_the_first_update_is_exactly_zero(tmp_path):
    run(lora_config(tmp_path, loss={"kl_coef": 0.1}, train={"steps": 2}))
    first, second = (line["kl"] for line in lines(tmp_path / "metrics.jsonl"))
    assert first == 0 < second


HEADS = {
    "plain": ({}, {}, True),
    "LoRA on the head": ({}, {"target_modules": ["q_proj", "lm_head"]}, False),
    "LoRA on an untied head": ({"tie_word_embeddings": False}, {"target_modules": ["lm_head"]}, False),
    "LoRA on embeddings tied with it": ({}, {"target_modules": ["q_proj", "embed_tokens"]}, True),
    "modules_to_save": (
        {"tie_word_embeddings": False},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        False,
    ),
    "trained tokens, tied": ({}, {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]}, False),
}


@pytest.mark.parametrize("which", HEADS)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_the_linear_loss_never_goes_past_an_adapter_at_the_head(tmp_path, tokenizer, which):
    changes, options, is_plain = HEADS[which]
    model = adapted(build_model(vocab_size=64, **changes), fill=0.1, **options)
    assert (LinearHead.of(model) is not None) is is_plain
    experience = experience_of(model, tokenizer)
    whole = gradients(model, experience, tmp_path, linear="off")
    if not is_plain:
        with pytest.raises(ValueError, match=r"loss.linear: 'on' needs a model"):
            policy_of(model, tmp_path, linear="on")
    chunked = gradients(model, experience, tmp_path, linear="on" if is_plain else "auto")
    assert chunked.keys() == whole.keys()
    for name, gradient in whole.items():
        assert gradient.any(), name
        torch.testing.assert_close(chunked[name], gradient, atol=1e-6, rtol=1e-4)


def test_hooks_on_the_head_keep_its_logits_whole():
    model = adapted(build_model(vocab_size=64))
    handle = model.get_output_embeddings().register_forward_hook(lambda *call: 2 * call[-1])
    assert LinearHead.of(model) is None
    handle.remove()
    assert LinearHead.of(model) is not None
    model.register_forward_hook(lambda *call: call[-1])
    assert LinearHead.of(model) is None


def test_a_frozen_head_gets_no_gradient(tmp_path, tokenizer):
    model = adapted(build_model(vocab_size=64), fill=0.1)
    gradients(model, experience_of(model, tokenizer), tmp_path, linear="on")
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_an_adapter_and_the_model_inside_it_are_lent_to_one_thread_at_a_time(tokenizer):
    model = adapted(fill=0.1)
    base = model.get_base_model()
    engine = RolloutEngine(model, tokenizer, max_rows=4)
    alone = engine.generate(prompts(), Budget(6, 5), 2, Sampling(1.0, seed=3), progress=False)
    with ThreadPoolExecutor(1) as pool:
        with exclusive(base), adapter_off(model):
            call = (prompts(), Budget(6, 5), 2, Sampling(1.0, seed=3))
            beside = pool.submit(engine.generate, *call, progress=False)
            time.sleep(0.2)
            assert not beside.done()
        batch = beside.result(timeout=60)
    assert torch.equal(batch.tokens, alone.tokens)
    assert torch.equal(batch.full_logprobs, alone.full_logprobs)
