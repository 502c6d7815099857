"""LoRA is trained over a base that stays as it is; what cannot be trained is refused by name."""

import copy

import pytest
import torch

from elastic.models.adapter import adds_nothing, base_tensors
from elastic.train import TrainConfig
from elastic.train.run.adapter import with_adapter
from tests.train.adapters.runs import adapted, lora_config
from tests.train.test_train_config import tables
from tests.train.tiny_run import build_config, build_model, lines, run


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
