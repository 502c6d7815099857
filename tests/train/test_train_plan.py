"""The plan of a run against what the run takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from elastic.budget import Budget, Markers
from elastic.budget.machine import compile_budgets
from elastic.models import tiny
from elastic.models.modes import recompute_activations
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.rollout import RolloutEngine
from elastic.rollout.step.step import new_slots
from elastic.train import TrainConfig
from elastic.train.planning.peak import PeakMemory
from elastic.train.planning.rates import Rates
from elastic.train.planning.run_plan import plan_run
from elastic.train.planning.text import text
from elastic.train.planning.update_memory import body_bytes, loss_bytes
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.packing import pack
from tests.train.tiny_run import build_config

RESULTS = Path(__file__).parents[2] / "bench" / "results"


def small_config() -> Qwen2Config:
    """A Qwen2 of a million weights over the embedded vocabulary; its head is no copy of the embedding."""
    return Qwen2Config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
        pad_token_id=IDS["<pad>"],
        tie_word_embeddings=False,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model's directory without any weights."""
    small_config().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def config_of(directory: Path, **tables: dict[str, Any]) -> TrainConfig:
    tables["model"] = {"path": str(directory)} | tables.get("model", {})
    return build_config(directory.parent / "run", **tables)


def real_model() -> Any:
    return AutoModelForCausalLM.from_config(small_config(), dtype=torch.float32).eval()


def test_weights_gradients_and_optimizer_state_are_the_bytes_of_a_real_update(directory: Path) -> None:
    plan = plan_run(config_of(directory, loss={"kl_coef": 0.1}))
    model = real_model()
    optimizer = build_optimizer(model, plan.config.optim)
    model(torch.zeros(1, 4, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    parameters = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values()]
    weights = sum(tensor.nbytes for tensor in (*parameters, *model.buffers()))
    assert plan.memory.weights == plan.memory.reference == weights
    assert plan.memory.gradients == sum(parameter.grad.nbytes for parameter in parameters)
    assert plan.memory.optimizer == sum(state.nbytes for state in states)
    assert plan.memory.rollout_copy == 0
    assert plan.parameters == sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("mixed", ["no", "bf16"])
def test_the_kv_cache_is_the_engines_own_for_the_longest_prompts(directory: Path, mixed: str) -> None:
    config = config_of(directory, train={"mixed_precision": mixed}, data={"count": 40})
    problems = tiny.problems(40, 0, "train")
    tokenizer, model = build_tokenizer(), real_model()
    longest = sorted(
        (problem.prompt for problem in problems), key=lambda text: -len(tokenizer(text).input_ids)
    )
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    engine = RolloutEngine(
        model.bfloat16() if mixed == "bf16" else model, tokenizer, max_rows=8, add_special_tokens=False
    )
    memory = plan_run(config).memory
    assert memory.kv_cache == engine.kv_bytes(longest[:4], Budget(6, 5), samples_per_prompt=4)
    # 16-bit parameters, buffers as they are
    halves = sum(p.numel() * 2 for p in model.parameters()) + buffers
    assert memory.rollout_copy == (halves if mixed == "bf16" else 0)


def test_kept_sets_count_where_a_filter_is_on(directory: Path) -> None:
    rollout = {"top_p": 0.9, "most_kept": 100}
    plan = plan_run(config_of(directory, rollout=rollout))
    machine = compile_budgets([Budget(1, 1)], Markers((2,), (3,)), None, [0], 99)[0]
    slots = new_slots(8, 4, machine, torch.device("cpu"), most_kept=100)
    window = slots.log_kept_ids.nbytes + slots.log_kept_counts.nbytes
    assert plan.memory.kept_sets == window + window // 64  # and what a step draws, before it is logged
    assert "kept sets of a step: at most" in text(plan)
    for changes in ({"top_p": 1.0}, {"most_kept": 0}):
        assert plan_run(config_of(directory, rollout=rollout | changes)).memory.kept_sets == 0


@pytest.mark.parametrize("mixed", ["no", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_an_upper_bound_close_to_a_real_micro_batch(
    directory: Path, mixed: str, recompute: bool
) -> None:
    plan = plan_run(
        config_of(
            directory,
            budget={"thinking": 40, "solution": 23},  # with the end marker 64 tokens a row
            train={"mixed_precision": mixed, "micro_batch_tokens": 400},
            model={"gradient_checkpointing": recompute},
        )
    )
    model = real_model()
    if recompute:
        recompute_activations(model)
    rows, short = [torch.zeros(64, dtype=torch.int64)] * 5, [torch.zeros(n) for n in (64, 50, 33, 12, 60)]
    full = pack([[0] * 30, [0] * 20], rows, [0, 0, 0, 0, 1])
    early = pack([[0] * 30, [0] * 20], [row.long() for row in short], [0, 0, 0, 0, 1])
    assert full.input_ids.numel() <= plan.memory.micro_batch_tokens == 400
    whole, part = (body_bytes(model, batch, mixed == "bf16").most for batch in (full, early))
    scale = full.input_ids.numel() / 400
    assert part < whole < plan.memory.activations
    assert whole > 0.85 * scale * plan.memory.activations


def test_peak_memory_counts_what_is_alive_at_a_time() -> None:
    known = torch.zeros(1000)
    with PeakMemory([known]) as memory:
        a = torch.ones(100)
        known.add_(1)
        b = a + 1
        del a
        c = b.view(10, 10) * 2
    assert memory.peak == 2 * 400
    assert c.sum() == 400


def test_the_losss_logits_are_the_peak_that_was_measured_on_a_gpu() -> None:
    (file,) = RESULTS.glob("gpu-nvidia-h200-*.json")
    shape = "N=16384 H=1536 V=151936"
    measured = {
        int(row["variant"].rpartition(" ")[2]): row["peak_bytes"]
        for row in json.loads(file.read_text())["results"]
        if row["op"] == "linear_grpo_loss" and "chunks of" in row["variant"] and row["shape"] == shape
        and row["variant"].startswith("elastic")
    }  # fmt: skip
    assert len(measured) == 3
    for chunk, peak in measured.items():
        config = TrainConfig.from_table(
            {
                "model": {"path": "m"},
                "data": {"source": "d.jsonl"},
                "train": {"output_dir": "o"},
                "loss": {"linear_chunk_tokens": chunk},
            }
        )
        assert loss_bytes(config.loss, 16384, 151936, 1536, 2) == pytest.approx(peak, rel=0.02)


def step_line(**values: float) -> str:
    step = {"completion_tokens": 8.0, "rollout_tokens": 128.0, "seconds_rollout": 2.0, "seconds_reward": 0.5}
    return json.dumps({"step": 1} | step | {"seconds_update": 4.0} | values) + "\n"


def test_hours_are_the_work_at_measured_rates_without_the_first_step(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    evaluation = json.dumps({"step": 0, "eval/t6_s5/accuracy": 0.1}) + "\n"
    file.write_text(evaluation + step_line(seconds_rollout=99.0) + 2 * step_line())
    config = config_of(directory, train={"steps": 100})
    plan = plan_run(config, file)
    # 16 rows of at most 6 + 5 + 1 tokens in 100 steps; a token takes 2/128 + 0.5/128 + 4/128 seconds.
    assert plan.work.step_tokens == 16 * 12
    assert plan.hours is not None
    assert plan.hours.most == pytest.approx(100 * 16 * 12 * 6.5 / 128 / 3600)
    assert plan.hours.expected is None  # nothing says that the rows are of the same budgets
    (tmp_path / "config.toml").write_text(config.to_toml())
    expected = plan_run(config, tmp_path).hours
    assert expected is not None
    assert expected.expected == pytest.approx(100 * 16 * 8 * 6.5 / 128 / 3600)


def test_without_measured_rates_there_are_no_hours(directory: Path) -> None:
    plan = plan_run(config_of(directory))
    assert plan.rates is None
    assert plan.hours is None


@pytest.mark.parametrize("content", ["", '{"step": 1}\n', "no json\n", "3\n"])
def test_rates_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"rates: .*metrics\.jsonl"):
        Rates.read(tmp_path)


def test_random_budgets_count_at_their_mean(directory: Path) -> None:
    draw = {"thinking": 30, "solution": 5, "draw": "random", "thinking_low": 10}
    work = plan_run(config_of(directory, budget=draw, train={"steps": 200})).work
    assert work.row_tokens == 36
    assert work.step_tokens == pytest.approx(16 * 36 * 25 / 35, rel=0.02)


def test_solutions_behind_every_cut_count(directory: Path) -> None:
    cuts = {"thinking": 12, "solution": 5, "cuts": [4, 8, 12], "cut_samples": 2}
    plan = plan_run(config_of(directory, budget=cuts))
    assert plan.work.step_tokens == 16 * (12 + 1 + 6 * 5)
    assert any("behind all cuts" in note for note in plan.notes)


def test_what_stops_a_run_from_starting_is_listed(directory: Path) -> None:
    reward = {"name": "code", "memory_mb": 1}
    plan = plan_run(config_of(directory, data={"source": "missing.jsonl", "count": 12}, reward=reward))
    assert len(plan.problems) == 2
    assert "reward.name: 'code' cannot be given: " in plan.problems[0]
    assert "missing.jsonl" in plan.problems[1]
    assert any("there are no problems yet" in note for note in plan.notes)
    assert plan.work.rows == 16


def test_a_model_without_a_tokenizer_is_planned_with_prompts_of_no_tokens(tmp_path: Path) -> None:
    small_config().save_pretrained(tmp_path / "model")
    plan = plan_run(config_of(tmp_path / "model"))
    assert plan.work.longest_prompt == 0
    assert any("count as 0 tokens" in note for note in plan.notes)
    assert plan.memory.kv_cache > 0
