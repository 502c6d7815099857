"""Checkpoints hold the adapter alone; it is resumed, loaded over its own base only, and merged."""

import json
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file

from elastic import Budget, RolloutEngine, Sampling, load_model
from elastic.commands import cli
from elastic.data.files import write_checksums
from elastic.models import tiny
from elastic.models.adapter import adapter_tensors, has_adapter
from elastic.models.rollout_model import RolloutModel
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import Trainer, train_from_config
from tests.train.adapters.runs import adapted, base_directory, lora_config, prompts
from tests.train.test_train_resume import CLOCKS
from tests.train.tiny_run import build_config, build_model, lines, run

STEPS = {"save_every": 2, "steps": 4}


def metrics(output):
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines(output / "metrics.jsonl")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base on the disk and a run from a file over it, with a KL; four steps, evaluated at every second."""
    root = tmp_path_factory.mktemp("trained")
    base = base_directory(root / "base", initializer_range=0.2)
    evaluation = {"every": 2, "count": 6, "budgets": [[6, 5]], "temperature": 1.0}
    config = lora_config(
        root / "run",
        model={"path": str(base), "device": "cpu"},
        train=STEPS,
        loss={"kl_coef": 0.01},
        reward={"name": "tiny", "functions": ["tests.train.tiny_run:nines"]},
        eval=evaluation,
    )
    train_from_config(config)
    return root, config


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor(prompts(1))).logits


def test_a_checkpoint_holds_the_adapters_tensors_and_no_others(trained):
    root, _ = trained
    model = root / "run" / "checkpoints" / "step-00000004" / "model"
    tensors = load_file(model / "adapter_model.safetensors")
    # q, k, v and o: 4 x (32 + 32); gate and up: 4 x (32 + 64); down: 4 x (64 + 32); in two layers
    assert sum(tensor.numel() for tensor in tensors.values()) == 2 * 4 * (4 * 64 + 3 * 96)
    assert not (model / "config.json").exists()
    # 4 bytes of the adapter, twice that of Adam's moments, and names; the base has 4 x 20,000
    files = [model / "adapter_model.safetensors", model.parent / "optimizer.pt"]
    assert sum(file.stat().st_size for file in files) < 4 * 3 * 4352 + 30_000
    saved = load_file(root / "run" / "final" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())


def test_a_resumed_run_ends_as_an_uninterrupted_one(trained, tmp_path):
    root, config = trained
    parts = config.to_dict() | {"train": config.to_dict()["train"] | {"output_dir": str(tmp_path / "run")}}
    for steps in (2, 4):
        parts["train"]["steps"] = steps
        train_from_config(type(config).from_table(parts))
    whole, found = (load_file(r / "run" / "final" / "adapter_model.safetensors") for r in (root, tmp_path))
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    assert metrics(tmp_path / "run") == metrics(root / "run")


@pytest.mark.parametrize("options", [{"modules_to_save": ["norm"]}, {"bias": "all"}, {"use_dora": True}])
def test_what_else_an_adapter_trains_is_in_its_checkpoint(tmp_path, options):
    def model():
        return adapted(build_model(attention_bias=True), **options)

    run(build_config(tmp_path / "whole", train=STEPS, optim={"lr": 0.05}), model=model())
    for steps in (2, 4):
        config = build_config(tmp_path / "parts", train=STEPS | {"steps": steps}, optim={"lr": 0.05})
        run(config, model=model())
    whole, parts = (
        load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_resumption_over_another_base_is_refused(trained, tmp_path):
    _, config = trained
    shutil.copytree(trained[0] / "run", tmp_path / "run")
    base_directory(tmp_path / "base", initializer_range=0.21)
    table = config.to_dict()
    table["train"] |= {"output_dir": str(tmp_path / "run"), "steps": 6}
    table["model"]["path"] = str(tmp_path / "base")
    state = tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json"
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    with pytest.raises(ValueError, match=r"model.path"):
        train_from_config(type(config).from_table(table))
    # The same path with other weights: only the fingerprint tells.
    path = json.dumps(str(trained[0] / "base")), json.dumps(str(tmp_path / "base"))
    state.write_text(state.read_text().replace(*path))
    sums = state.parent / "SHA256SUMS"
    sums.unlink()
    write_checksums(state.parent)
    with pytest.raises(ValueError, match="was made with other base model, so going on would be another run"):
        train_from_config(type(config).from_table(table))


def test_final_loads_as_base_and_adapter_or_merged(trained, capsys):
    root, _ = trained
    final = root / "run" / "final"
    model, tokenizer = load_model(final, device="cpu")
    assert has_adapter(model)
    assert not model.training
    saved = load_file(final / "adapter_model.safetensors")
    assert all(torch.equal(adapter_tensors(model)[name], tensor) for name, tensor in saved.items())
    assert len(tokenizer) == 39
    merged, _ = load_model(final, device="cpu", merge=True)
    assert type(merged) is type(build_model())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=1e-4)
    base, _ = load_model(root / "base", device="cpu")
    assert (logits(base) - logits(model)).abs().max() > 0.1
    assert "adapter, merged" in capsys.readouterr().err


def test_an_adapter_is_loaded_over_its_own_base_in_any_dtype(trained, tmp_path):
    root, _ = trained
    final = root / "run" / "final"
    model, _ = load_model(final, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in adapter_tensors(model).values()} == {torch.float32}
    other = base_directory(tmp_path / "other", initializer_range=0.21)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(ValueError, match=r"path: the adapter '.*final' was made for another base model"):
            load_model(final, base=other, device="cpu", dtype=dtype)
    moved = shutil.copytree(root / "base", tmp_path / "moved")
    assert has_adapter(load_model(final, base=moved, device="cpu")[0])


def test_directories_that_cannot_be_loaded_are_refused_by_name(trained, tmp_path):
    root, _ = trained
    broken = shutil.copytree(root / "run" / "final", tmp_path / "broken")
    with pytest.raises(ValueError, match=r"merge: is for an adapter's directory; .*base"):
        load_model(root / "base", merge=True)
    with pytest.raises(ValueError, match=r"the base of the adapter .* is .*final.*, an adapter itself"):
        load_model(broken, base=root / "run" / "final")
    with pytest.raises(ValueError, match=r"the base of the adapter .*broken.*: path: no such directory"):
        load_model(broken, base=tmp_path / "nowhere" / "base")
    (broken / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"adapter_model.safetensors' cannot be read"):
        load_model(broken)
    config = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=r"names no base model .*give it as base="):
        load_model(broken)
    wider = shutil.copytree(root / "run" / "final", tmp_path / "wider")
    (wider / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(ValueError, match=r"has shape \[4, 64\], its configuration says \[8, 64\]"):
        load_model(wider)
    fewer = shutil.copytree(root / "run" / "final", tmp_path / "fewer")
    (fewer / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(ValueError, match=r"has, and the adapter's configuration does not, '.*lora_A.weight'"):
        load_model(fewer)


def test_generate_and_eval_take_an_adapters_directory(trained, tmp_path, capsys):
    root, _ = trained
    final = str(root / "run" / "final")
    arguments = ["--thinking", "6", "--solution", "5", "--prompt", "a 3 b + 4 ="]
    assert cli.main(["generate", final, "--device", "cpu", *arguments]) == 0
    seen = capsys.readouterr()
    assert "adapter, beside its base" in seen.err
    command = ["eval", final, "--data", "tiny", "--count", "4", "--methods", "separate", "--budgets", "6:5"]
    assert cli.main([*command, "--device", "cpu", "--out", str(tmp_path / "results")]) == 0


def test_training_goes_on_from_an_adapters_directory(trained, tmp_path):
    root, config = trained
    table = config.to_dict()
    table["model"]["path"] = str(root / "run" / "final")
    table["train"] |= {"output_dir": str(tmp_path), "steps": 2}
    del table["adapter"], table["eval"]
    train_from_config(type(config).from_table(table))
    start, end = (load_file(d / "final" / "adapter_model.safetensors") for d in (root / "run", tmp_path))
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    assert lines(tmp_path / "metrics.jsonl")[0]["kl"] == 0  # against the adapter as it was


def test_final_is_the_merged_model_where_that_is_asked_for(trained, tmp_path):
    root, config = trained
    table = config.to_dict()
    table["train"] |= {"output_dir": str(tmp_path)}
    table["adapter"]["merge"] = True
    train_from_config(type(config).from_table(table))
    merged, _ = load_model(tmp_path / "final", device="cpu")
    wanted, _ = load_model(root / "run" / "final", device="cpu", merge=True)
    assert merged.config._name_or_path == str(tmp_path / "final")
    assert all(map(torch.equal, merged.state_dict().values(), wanted.state_dict().values()))


def test_space_for_a_merged_model_is_looked_at_before_it_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 9 * 10**5, 50_000))
    run(lora_config(tmp_path / "adapter", train={"steps": 1}))  # 4 bytes of 4352 weights
    config = lora_config(tmp_path / "merged", train={"steps": 1}, adapter={"merge": True})
    with (
        pytest.warns(UserWarning, match=r"50 kB are free in .*; .*, the final model 8\d kB"),
        pytest.raises(OSError, match=r"needs 8\d kB, 50 kB are free; .*final'"),
    ):
        run(config)
    assert not (tmp_path / "merged" / "final").exists()


def test_a_merged_rollout_model_shares_what_is_not_adapted_and_leaves_the_base_alone():
    model = adapted(fill=0.1, target_modules=["q_proj"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rollouts = RolloutModel(model, "no", merged=True)
    plain = rollouts.module
    assert not has_adapter(plain)
    base = model.get_base_model().model
    assert plain.model.embed_tokens.weight is base.embed_tokens.weight
    layer = base.layers[0].self_attn.q_proj
    own = plain.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert torch.equal(own, layer.base_layer.weight + 2.0 * (b @ a))  # alpha 8 / rank 4
        b.mul_(3)
        stale = own.clone()
        rollouts.sync()
        assert not torch.equal(own, stale)
        torch.testing.assert_close(own, layer.base_layer.weight + 2.0 * (b @ a))
        b.copy_(before["base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(logits(RolloutModel(model, "no", merged=True).module), logits(model))


def test_merged_rollouts_of_mixed_precision_round_sums_and_not_additions():
    model = adapted(fill=0.001, target_modules=["q_proj"])
    plain = RolloutModel(model, "bf16", merged=True)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    sums = layer.base_layer.weight + layer.get_delta_weight("default")
    own = plain.module.model.layers[0].self_attn.q_proj.weight
    assert plain.module.dtype == torch.bfloat16
    assert torch.equal(own, sums.bfloat16())
    with torch.no_grad():
        layer.lora_B["default"].weight.mul_(100)
    plain.sync()
    sums = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.equal(own, sums.bfloat16())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model", [lambda: adapted(modules_to_save=["norm"]), lambda: adapted()])
def test_training_with_merged_rollouts_differs_by_rounding_only(tmp_path, model):
    for way in ("adapter", "merged"):
        config = build_config(tmp_path / way, adapter={"rollouts": way}, optim={"lr": 0.05})
        run(config, model=model())
    outputs = [tmp_path / way for way in ("adapter", "merged")]
    a, b = (load_file(output / "final" / "adapter_model.safetensors") for output in outputs)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-2)
    first, second = ([line["reward"] for line in lines(o / "metrics.jsonl")] for o in outputs)
    assert first == second


def test_merging_into_a_bfloat16_base_differs_from_the_adapter_by_about_one_rounding(tokenizer):
    model = adapted(build_model(initializer_range=0.2).bfloat16(), fill=0.02)
    sampling, budget = Sampling(1.0, seed=3), Budget(6, 5)
    merged = RolloutModel(model, "no", merged=True).module
    engine = RolloutEngine(merged, tokenizer, max_rows=4)
    batch = engine.generate(prompts(), budget, 2, sampling, progress=False)
    rows = [[*batch.prompt(row // 2), *batch.tokens[row, : batch.lengths[row]].tolist()] for row in range(6)]
    with torch.no_grad():
        for row in rows:
            found, wanted = (m(input_ids=torch.tensor([row])).logits.log_softmax(-1) for m in (merged, model))
            assert 0 < (found - wanted).abs().max() < 0.2


def test_the_trainers_engine_holds_no_weights_of_its_own(tmp_path):
    trainer = Trainer(
        lora_config(tmp_path), build_model(), build_tokenizer(), tiny.problems(12), lambda *_: 0.0
    )
    engine = trainer._collector._engine
    assert engine.model is trainer.model
