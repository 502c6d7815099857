"""The training loop: learning, budgets, evaluation, order, refusals."""

from collections import Counter

import pytest
import torch

from elastic import RolloutEngine
from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rollout import OutOfContext
from elastic.rollout.step import compiled
from elastic.train import Trainer
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.data_order import DataOrder
from elastic.train.collect.prompts import Prompts
from elastic.train.collect.seeds import RandomStream, derive
from elastic.train.config.budget import BudgetConfig
from elastic.train.config.optim import OptimConfig
from elastic.train.update.learning_rate import learning_rate
from tests.train.tiny_run import build_config, build_model, lines, run


@pytest.mark.parametrize(
    "loss", [{"loss": "dapo"}, {"loss": "grpo", "kl_coef": 1e-3}, {"loss": "cispo", "clip_high": 5.0}]
)
def test_a_random_model_learns_an_easy_reward(tmp_path, loss):
    run(
        build_config(
            tmp_path,
            train={"steps": 40},
            loss=loss,
            rollout={"samples_per_prompt": 8, "max_rows": 32},
            optim={"lr": 2e-2},
        )
    )
    rewards = [record["reward"] for record in lines(tmp_path / "metrics.jsonl")]
    assert sum(rewards[:3]) / 3 < 0.15
    assert sum(rewards[-3:]) / 3 > 0.7


def test_several_updates_a_batch_learn_too_and_reach_the_clip(tmp_path):
    run(
        build_config(
            tmp_path,
            train={"steps": 12, "epochs_per_batch": 3, "minibatches": 2},
            rollout={"samples_per_prompt": 8, "max_rows": 32},
            optim={"lr": 2e-2},
        )
    )
    records = lines(tmp_path / "metrics.jsonl")
    assert max(record["clip_fraction"] for record in records) > 0
    assert records[-1]["reward"] > 2 * records[0]["reward"]


def test_recomputed_old_logprobs_give_the_same_first_step(tmp_path):
    norms = {}
    for kind in ("rollout", "recompute"):
        run(build_config(tmp_path / kind, train={"steps": 1}, loss={"old_logprobs": kind}))
        norms[kind] = lines(tmp_path / kind / "metrics.jsonl")[0]["grad_norm"]
    assert norms["recompute"] == pytest.approx(norms["rollout"], rel=1e-4)


def test_importance_weights_against_the_engine_are_one_where_it_agrees(tmp_path):
    plain = {"old_logprobs": "recompute"}
    norms = []
    for index, loss in enumerate((plain, plain | {"engine_correction": "truncate", "engine_level": "row"})):
        run(build_config(tmp_path / str(index), train={"steps": 1}, loss=loss))
        norms.append(lines(tmp_path / str(index) / "metrics.jsonl")[0]["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_evaluation_runs_at_the_start_every_so_often_and_at_the_end(tmp_path):
    config = build_config(
        tmp_path, train={"steps": 5}, eval={"every": 2, "count": 3, "samples": 2, "budgets": [[0, 3], [4, 5]]}
    )
    run(config, eval_dataset=problems(3, split="test"))
    records = [record for record in lines(tmp_path / "metrics.jsonl") if "eval/t4_s5/accuracy" in record]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    for record in records:
        assert record["eval/t0_s3/thinking_tokens"] == 0
        assert record["eval/t0_s3/cut_share"] == 1
        assert 0 < record["eval/t4_s5/thinking_tokens"] <= 4


def test_evaluation_changes_nothing_of_the_training(tmp_path):
    with_eval = run(
        build_config(tmp_path / "a", eval={"every": 1, "count": 2, "budgets": [[3, 3]]}),
        eval_dataset=problems(2),
    )
    without = run(build_config(tmp_path / "b"))
    for a, b in zip(with_eval.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradient_checkpointing_gives_the_same_weights(tmp_path):
    plain = run(build_config(tmp_path / "a"))
    saving = run(build_config(tmp_path / "b", model={"gradient_checkpointing": True}))
    for a, b in zip(plain.model.parameters(), saving.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_callbacks_see_every_step_and_the_models_own_attention(tmp_path):
    model, seen = build_model(), []
    own = model.config._attn_implementation

    def callback(progress, record):
        seen.append((progress.step, progress.update, progress.position, record["step"]))
        assert model.config._attn_implementation == own
        assert not model.training

    run(build_config(tmp_path, train={"minibatches": 2}), model=model, callbacks=[callback])
    assert seen == [(1, 2, 4, 1), (2, 4, 8, 2), (3, 6, 12, 3)]


def test_bf16_autocast_trains_over_float32_weights(tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        trainer = run(build_config(tmp_path, train={"mixed_precision": "bf16"}))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert Accelerator(cpu=True).mixed_precision == "no"
    assert all(record["grad_norm"] > 0 for record in lines(tmp_path / "metrics.jsonl"))


def test_gradient_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path):
    model = build_model()
    before = [p.detach().clone() for p in model.parameters()]
    model.model.norm.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(RuntimeError, match="step 1: the gradient's norm is nan"):
        run(build_config(tmp_path), model=model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"model": {"end_marker": "</reason>"}}, "</reason>"),
        ({"data": {"system": "Be brief."}}, "data.system: needs the chat template"),
        (
            {
                "data": {"source": "questions.jsonl", "chat": "off"},
                "reward": {"length": "l1-max", "target_min": 2, "target_max": 9},
            },
            "reward.length: 'l1-max' adds a sentence",
        ),
        (
            {"train": {"minibatches": 5}},
            "train.minibatches: must be at most the groups of a process, 4, got 5",
        ),
        ({"eval": {"every": 1}}, "eval.every: is 1, but there are no problems to evaluate"),
        ({"budget": {"thinking": 2000}}, "thinking: expected at most the model's context of 1024, got 2000"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_runs(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path, **tables))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_chat_without_a_template_is_refused_before_anything_runs(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"data\.chat: .on., but the tokenizer has no chat template"):
        run(build_config(tmp_path, data={"chat": "on"}), tokenizer=tokenizer)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_prompt_longer_than_the_context_is_named_before_anything_runs(tmp_path):
    long = Problem("<bos> " + "1 + " * 600 + "1 = ? <think>", "1", "the-long-one")
    with pytest.raises(OutOfContext, match=r"problem 'the-long-one': .*1024"):
        run(build_config(tmp_path), dataset=[*problems(4), long])


def test_empty_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one problem"):
        run(build_config(tmp_path), dataset=[])


def test_random_budgets_differ_between_groups_and_repeat_for_a_seed():
    config = BudgetConfig(thinking=40, solution=30, draw="random", thinking_low=10, solution_low=20)
    drawn = BudgetDraw(config, seed=1).draw(3, range(200))
    assert {b.thinking for b in drawn} >= {10, 40}
    assert all(10 <= b.thinking <= 40 and 20 <= b.solution <= 30 for b in drawn)
    # Another share of the groups (another process) draws the same for the same group.
    assert BudgetDraw(config, seed=1).draw(3, range(50, 60)) == drawn[50:60]
    assert BudgetDraw(config, seed=2).draw(3, range(200)) != drawn
    assert BudgetDraw(config, seed=1).draw(4, range(200)) != drawn


def test_curriculum_goes_linearly_to_the_budget_and_stays():
    config = BudgetConfig(
        thinking=20,
        solution=30,
        draw="curriculum",
        thinking_start=100,
        solution_start=40,
        curriculum_steps=10,
    )
    draw = BudgetDraw(config, seed=0)
    pairs = [(b.thinking, b.solution) for step in (0, 5, 10, 99) for b in draw.draw(step, range(1))]
    assert pairs == [(100, 40), (60, 35), (20, 30), (20, 30)]


def test_order_has_every_item_once_an_epoch_and_depends_on_the_position_alone():
    order = DataOrder(list("abcdefg"), seed=3)
    sequence = order.take(0, 21)
    for epoch in range(3):
        assert Counter(sequence[7 * epoch : 7 * epoch + 7]) == Counter("abcdefg")
    assert sequence[:7] != sequence[7:14]
    assert DataOrder(list("abcdefg"), seed=3).take(5, 9) == sequence[5:14]
    assert order.take(0, 21) == sequence
    assert DataOrder(list("abcdefg"), seed=4).take(0, 21) != sequence
    assert DataOrder(list("abc"), seed=3, shuffle=False).take(1, 4) == list("bcab")
    assert order.epoch(14) == 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [5e-4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3]),
        ("linear", [5e-4, 1e-3, 1e-3, 7.75e-4, 5.5e-4, 3.25e-4, 1e-4]),
        ("cosine", [5e-4, 1e-3, 1e-3, 8.68198e-4, 5.5e-4, 2.31802e-4, 1e-4]),
    ],
)
def test_schedules_warm_up_and_end_at_the_final_rate(schedule, expected):
    config = OptimConfig(lr=1e-3, schedule=schedule, warmup_updates=2, final_lr=0.1)
    assert [learning_rate(config, update, 7) for update in range(7)] == pytest.approx(expected, rel=1e-5)


def test_seeds_differ_in_every_counter_and_fit_the_sampler():
    seeds = [
        derive(seed, stream, step, row)
        for seed in (0, 1, 2**31 - 1)
        for stream in (RandomStream.ROLLOUT, RandomStream.LENGTHS)
        for step in range(20)
        for row in range(20)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, RandomStream.ROLLOUT, 1, 2) != derive(0, RandomStream.ROLLOUT, 2, 1)


def test_length_reward_asks_and_pays_for_a_length(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "<bos> {% for m in messages %}{{ m.content }} {% endfor %}? <think>"
    config = build_config(
        tmp_path,
        data={"chat": "on"},
        reward={"length": "l1-exact", "target_min": 5, "target_max": 9, "alpha": 0.1},
        logging={"samples_every": 1, "samples": 16},
    )
    prompts = Prompts(tokenizer, config.data, config.reward, config.train.seed)
    asked = {step: prompts.lengths(step - 1, range(4)) for step in (1, 2, 3)}
    assert len({n for lengths in asked.values() for n in lengths}) > 2
    assert "Think for 7 tokens." in prompts.render([Problem("1 + 1", "2")], [7])[0]
    dataset = [Problem(f"{n} + 1 =", str(n + 1), str(n)) for n in range(8)]
    Trainer(config, build_model(), tokenizer, dataset, lambda response, answer: 1.0).train()
    samples = lines(tmp_path / "samples.jsonl")
    assert len(samples) == 48
    for index, sample in enumerate(samples):
        target = asked[sample["step"]][index % 16 // 4]
        used = sample["thinking_tokens"] + sample["solution_tokens"]
        assert sample["reward"] == pytest.approx(1 - 0.1 * abs(target - used))
    assert all(record["accuracy"] == 1.0 for record in lines(tmp_path / "metrics.jsonl"))


def test_decode_steps_run_as_the_configuration_says(tmp_path, monkeypatch):
    engines = []

    def noted(*args, **options):
        engines.append(RolloutEngine(*args, **options))
        return engines[-1]

    monkeypatch.setattr("elastic.train.collect.engines.RolloutEngine", noted)
    monkeypatch.setattr(compiled, "_BACKEND", "aot_eager")  # leaves out the code generation, which takes long
    rollout = {"attention": "sdpa", "compile": "on", "max_rows": 5}
    run(build_config(tmp_path, train={"steps": 1}, rollout=rollout))
    assert engines[0].attention == "sdpa (asked for)"
    assert engines[0].max_rows == 5
    assert engines[0]._stepper._compiled._made  # steps went through a compilation
