"""LoRA is trained over a base that stays as it is; the engine, the KL and the head see what it computes."""

import copy

import pytest
import torch

from elastic import Budget, RolloutEngine, Sampling
from elastic.models.adapter import adapter_off, adds_nothing, base_tensors
from elastic.models.head import LinearHead
from elastic.models.modes import recompute_activations
from elastic.models.rollout_model import RolloutModel
from elastic.train import TrainConfig
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.run.accelerator import build_accelerator
from elastic.train.run.adapter import with_adapter
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.reference import Reference
from elastic.train.update.stats import UpdateStats
from tests.train.adapters.runs import adapted, lora_config, prompts
from tests.train.test_train_config import tables
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


def test_only_the_adapter_is_trained_and_the_base_keeps_its_bits(tmp_path):
    base = {name: tensor.clone() for name, tensor in build_model().state_dict().items()}
    trainer = run(lora_config(tmp_path, train={"steps": 2}))
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 14
    assert all(".lora_" in name for name in trained)
    held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(held) == len(trained)
    assert not adds_nothing(trainer.model)
    found = dict(base_tensors(trainer.model))
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)


def test_the_adapter_learns(tmp_path):
    # Logits of larger weights: the head is not adapted, so it bounds what can be learned.
    config = lora_config(tmp_path, train={"steps": 6}, rollout={"samples_per_prompt": 8})
    run(config, model=build_model(initializer_range=0.2))
    rewards = [line["reward"] for line in lines(tmp_path / "metrics.jsonl")]
    assert rewards[-1] > 0.5 > 10 * rewards[0]


def test_the_adapter_is_drawn_from_the_seed_and_leaves_other_generators_alone(tmp_path):
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        model = with_adapter(build_model(), lora_config(tmp_path, train={"seed": seed}))
        drawn.append(next(p for name, p in model.named_parameters() if "lora_A" in name))
        torch.rand(3)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    torch.set_rng_state(before)
    with_adapter(build_model(), lora_config(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["q_prj"],
            r"adapter.target_modules: the model has no module 'q_prj'; its linear modules are q_proj, ",
        ),
        (["q_proj", "fc1"], r"no module 'fc1'; .*down_proj, lm_head"),
        ([], r"adapter.target_modules: must name at least one"),
        (["input_layernorm"], r"adapter.target_modules: Target module LlamaRMSNorm"),
    ],
)
def test_wrong_targets_are_refused_with_what_the_model_has(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        run(lora_config(tmp_path, adapter={"target_modules": given}))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_targets_and_scale_are_those_of_the_table(tmp_path):
    table = {"rank": 2, "alpha": 8, "target_modules": ["q_proj", "1.mlp.up_proj"], "use_rslora": True}
    model = run(lora_config(tmp_path, adapter=table, train={"steps": 1})).model
    layers = {name: m for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert {name.partition("layers.")[2] for name in layers} == {
        "0.self_attn.q_proj",
        "1.self_attn.q_proj",
        "1.mlp.up_proj",
    }
    layer = layers["base_model.model.model.layers.1.mlp.up_proj"]
    assert layer.scaling["default"] == pytest.approx(8 / 2**0.5)
    assert layer.lora_A["default"].weight.shape == (2, 32)


def test_a_peft_model_is_trained_like_a_table(tmp_path):
    model = adapted(lora_dropout=0.3)
    start = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match=r"the model has dropout \(lora_dropout 0.3\)"):
        trainer = run(build_config(tmp_path, train={"steps": 2}), model=model)
    assert trainer.model is model
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


def two_active(model):
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    return model


def trains_a_norm(model):
    model.base_model.model.model.norm.weight.requires_grad_(True)
    return model


def natively_adapted():
    from peft import LoraConfig

    model = build_model()
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    return model


def with_virtual_tokens():
    from peft import PromptTuningConfig, get_peft_model

    return get_peft_model(build_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def merged_in_place():
    model = adapted(fill=0.1)
    model.merge_adapter()
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: trains_a_norm(adapted()),
            r"1 trained parameters are not part .*model.norm.weight.*freeze",
        ),
        (lambda: adapted().requires_grad_(False), r"no parameter of the adapter 'default' is trained"),
        (lambda: two_active(adapted()), r"one active adapter, got 2: default, other"),
        (merged_in_place, r"the adapter 'default' is merged into the weights"),
        (natively_adapted, r"added by transformers \(add_adapter\)"),
        (with_virtual_tokens, "got PROMPT_TUNING, which puts virtual tokens in front"),
    ],
)
def test_adapters_that_are_not_served_are_refused_by_name(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path), model=model())


def test_keys_that_contradict_the_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"adapter.rank: must be 0 for a model that has an adapter.*got 4"):
        run(lora_config(tmp_path), model=adapted())
    for key, value in (("merge", True), ("rollouts", "merged")):
        with pytest.raises(ValueError, match=rf"adapter.{key}: there is no adapter"):
            run(build_config(tmp_path, adapter={key: value}))
        tied = adapted(target_modules=["embed_tokens"])
        with pytest.raises(ValueError, match=rf"adapter.{key}: .*'model.embed_tokens' and 'lm_head' share"):
            run(build_config(tmp_path, adapter={key: value}), model=tied)
        with pytest.raises(ValueError, match=rf"adapter.{key}: .* more than the two matrices"):
            run(build_config(tmp_path, adapter={key: value}), model=adapted(use_dora=True))


def test_a_bfloat16_base_is_left_without_masters_and_float16_is_refused(tmp_path):
    model = {"path": "tiny", "dtype": "bfloat16"}
    TrainConfig.from_table(tables(model=model, adapter={"rank": 4})).preflight()
    trainer = run(lora_config(tmp_path, train={"steps": 1}), model=build_model().bfloat16())
    states = trainer.optimizer.state_dict()["state"].values()
    assert {value.dtype for state in states for value in state.values()} == {torch.float32}
    held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert {parameter.dtype for parameter in held} == {torch.float32}
    half = TrainConfig.from_table(tables(model=model | {"dtype": "float16"}, adapter={"rank": 4}))
    with pytest.raises(ValueError, match=r"model.dtype: is float16"):
        half.preflight()


def test_without_peft_preflight_names_the_extra(monkeypatch):
    monkeypatch.setattr("elastic.train.config.adapter.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"adapter.rank: .*elastic\[lora\]"):
        TrainConfig.from_table(tables(adapter={"rank": 4})).preflight()


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
