"""The recipes of examples/ load and can be planned; nothing of a model is read but its config.json."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from transformers import Qwen2Config

from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rewards.code.run import check
from elastic.train import TrainConfig, train_from_config
from elastic.train.planning.run_plan import RunPlan, plan_run
from elastic.train.planning.text import text

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
# The 1.5B models' shape; depth and vocabulary are less, for time.
SHAPE = {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2}


@pytest.fixture
def on_local_files(tmp_path: Path):
    """A recipe with a model's config.json and tokenizer, and problems, of this directory."""
    config = Qwen2Config(**SHAPE, vocab_size=2048, num_hidden_layers=2, max_position_embeddings=131072)
    config.save_pretrained(tmp_path / "model")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %} <think>"
    tokenizer.save_pretrained(tmp_path / "model")
    graded_by = {"math": {"answer": 1}, "code": {"tests": [{"input": "1", "output": "2"}]}}
    for kind, field in graded_by.items():
        lines = [json.dumps({"problem": f"a {n % 10} + b = ?", "id": n} | field) for n in range(300)]
        (tmp_path / f"{kind}.jsonl").write_text("\n".join(lines))

    def placed(path: Path) -> TrainConfig:
        recipe = TrainConfig.load(path)
        generated = recipe.data.source == "tiny"
        problems = str(tmp_path / f"{recipe.reward.name}.jsonl")
        data = recipe.data if generated else replace(recipe.data, source=problems)
        model = replace(recipe.model, path="tiny" if generated else str(tmp_path / "model"))
        train = replace(recipe.train, output_dir=str(tmp_path / "run"))
        return replace(recipe, data=data, model=model, train=train)

    return placed


def planned(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> RunPlan:
    monkeypatch.setattr(safetensors, "safe_open", lambda *_, **__: pytest.fail("weights were read"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were read"))
    return plan_run(config)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_recipe_can_be_planned_without_weights(
    path: Path, on_local_files, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = on_local_files(path)
    monkeypatch.setattr("elastic.train.config.reward.code_grader", lambda _: None)  # needs a sandbox
    plan = planned(config, monkeypatch)
    assert not plan.problems
    assert not [note for note in plan.notes if "no effect" in note or "0 tokens" in note]
    assert plan.work.rows == config.rollout.prompts_per_step * config.rollout.samples_per_prompt
    assert plan.memory.activations
    shown = text(plan)
    assert f"= {plan.work.rows:,} rows" in shown
    assert json.loads(plan.to_json())["memory_bytes"]["most"] == plan.memory.most


def test_the_e1_recipe_has_the_papers_settings() -> None:
    (path,) = (path for path in EXAMPLES if path.stem == "e1-math-1.5b")
    recipe = TrainConfig.load(path)
    assert (recipe.budget.thinking, recipe.budget.solution, recipe.budget.draw) == (1024, 1024, "fixed")
    rollout, loop = recipe.rollout, recipe.train
    assert (rollout.prompts_per_step, rollout.samples_per_prompt, rollout.temperature) == (128, 8, 0.6)
    assert (recipe.loss.loss, recipe.loss.advantage, recipe.loss.kl_coef) == ("dapo", "group", 0.001)
    assert (recipe.optim.lr, recipe.optim.schedule) == (1e-6, "constant")
    assert (loop.steps, loop.minibatches, loop.epochs_per_batch) == (200, 2, 1)


def test_code_rewards_without_a_sandbox_are_refused_before_anything_is_loaded(
    on_local_files, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (path for path in EXAMPLES if path.stem == "e1-code-14b")
    monkeypatch.setattr("elastic.rewards.sandbox.available.ENVIRONMENT", {"PATH": "/nowhere"})
    check.cache_clear()
    loaded = "elastic.train.from_config.load_datasets"
    monkeypatch.setattr(loaded, lambda *_: pytest.fail("data was loaded"))
    with pytest.raises(
        ValueError, match=r"^reward\.name: 'code' .*apt install bubblewrap.*reward\.sandbox = false"
    ):
        train_from_config(on_local_files(path))
