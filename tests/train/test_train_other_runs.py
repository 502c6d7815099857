"""A run neither writes over another one nor goes on as another one."""

import dataclasses
import json
import warnings

import pytest
import torch
from accelerate import Accelerator

from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import Trainer
from tests.train.tiny_run import build_config, build_model, nines, run


def content(output):
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        ("auto", "train.output_dir: .*final holds the model of a finished run"),
        ("never", "train.resume: 'never', but .*final exists"),
    ],
)
def test_finished_run_without_checkpoints_is_not_overwritten(tmp_path, resume, message):
    run(build_config(tmp_path))
    before = content(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path, train={"resume": resume}))
    assert content(tmp_path) == before


def stopped(tmp_path, **tables):
    """A run that was killed after its first step, before any checkpoint."""

    def kill(progress, record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(build_config(tmp_path, **tables), callbacks=[kill])
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / "gone")


def test_metrics_of_a_stopped_run_are_its_own_alone(tmp_path):
    stopped(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"train.resume: 'never', but .*metrics.jsonl exists"):
        run(build_config(tmp_path, train={"resume": "never"}))
    with pytest.raises(
        ValueError, match=r"train.output_dir: .*metrics.jsonl is of another run.*optim.lr: 0.01"
    ):
        run(build_config(tmp_path, optim={"lr": 0.5}))
    assert content(tmp_path) == before
    (tmp_path / "config.toml").rename(tmp_path / "moved.toml")
    with pytest.raises(ValueError, match="its configuration is missing"):
        run(build_config(tmp_path))
    (tmp_path / "moved.toml").rename(tmp_path / "config.toml")
    run(build_config(tmp_path))
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def changed(problem_list, **changes):
    return [dataclasses.replace(problem_list[0], **changes), *problem_list[1:]]


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("training problems", {"dataset": problems(12, seed=1)}),
        ("training problems", {"dataset": changed(problems(12), answer="another")}),
        ("training problems", {"dataset": changed(problems(12), id="another")}),
        ("training problems", {"dataset": problems(12)[::-1]}),
        ("evaluation problems", {"eval_dataset": problems(2, seed=4, split="test")}),
        ("reference model", {"model": build_model(initializer_range=0.03)}),
        ("tokenizer", {"tokenizer": build_tokenizer()}),
    ],
)
def test_run_is_not_resumed_on_something_else(tmp_path, what, options):
    tables = {"loss": {"kl_coef": 0.1}, "eval": {"every": 5, "count": 2, "budgets": [[2, 2]]}}
    tables["train"] = {"steps": 1, "save_every": 1}
    test = problems(2, split="test")
    run(build_config(tmp_path, **tables), eval_dataset=test)
    tables["train"]["steps"] = 2
    if what == "tokenizer":
        options["tokenizer"].chat_template = "{{ messages[0].content }} <think>"
    before = content(tmp_path)
    with pytest.raises(ValueError, match=rf"step-00000001 was made with other {what}, so going on would be"):
        run(build_config(tmp_path, **tables), **{"eval_dataset": test} | options)
    assert content(tmp_path) == before
    run(build_config(tmp_path, **tables), eval_dataset=test)


def test_evaluation_may_change_where_its_table_does(tmp_path):
    train = {"steps": 1, "save_every": 1}
    run(
        build_config(tmp_path, train=train, eval={"every": 1, "count": 2, "budgets": [[2, 2]]}),
        eval_dataset=problems(2, split="test"),
    )
    run(
        build_config(
            tmp_path, train=train | {"steps": 2}, eval={"every": 1, "count": 3, "budgets": [[2, 2]]}
        ),
        eval_dataset=problems(3, split="test"),
    )


MEMORY = {
    "rollout": {"max_rows": 5},
    "train": {"accumulation_steps": 3, "micro_batch_tokens": 60},
    "loss": {"linear_chunk_tokens": 7, "skip_zero_advantage": False},
    "model": {"gradient_checkpointing": True},
}


def test_memory_may_change_in_a_resumed_run_and_its_numbers_then_differ_by_rounding(tmp_path):
    train, optim = {"save_every": 2}, {"lr": 1e-2, "eps": 1e-4}
    whole = run(build_config(tmp_path / "whole", train=train | {"steps": 4}, optim=optim))
    run(build_config(tmp_path / "other", train=train | {"steps": 2}, optim=optim))
    tables = MEMORY | {"train": MEMORY["train"] | train | {"steps": 4}}
    with pytest.warns(UserWarning, match=r"resumed with .*rollout.max_rows: 8 -> 5.* by rounding") as seen:
        other = run(build_config(tmp_path / "other", optim=optim, **tables))
    assert len(seen) == 1
    for a, b in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4e-6)


def test_trainers_of_several_precisions_follow_one_another(tmp_path, own_accelerate_state):
    def train(name, model, precision):
        trainer = run(
            build_config(tmp_path / name, train={"mixed_precision": precision, "steps": 2}), model=model
        )
        return [p.detach().clone() for p in trainer.model.parameters()]

    plain = train("plain", build_model(), "no")
    used = build_model()
    half = train("half", used, "bf16")
    assert any(not torch.equal(a, b) for a, b in zip(plain, half, strict=True))
    used.load_state_dict(build_model().state_dict())
    again = train("again", used, "no")  # the very model that the other precision was wrapped around
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    seen = []
    used.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    used(input_ids=torch.tensor([[1, 2]]))
    assert seen == [torch.float32]


def test_trainer_of_an_earlier_precision_says_so(tmp_path, own_accelerate_state):
    def build(name, precision, **options):
        config = build_config(tmp_path / name, train={"mixed_precision": precision})
        return Trainer(config, build_model(), build_tokenizer(), problems(12), nines, **options)

    first = build("first", "no")
    build("second", "bf16")
    with pytest.raises(
        ValueError, match=r"train.mixed_precision: is 'no', but accelerate computes in 'bf16'"
    ):
        first.train()
    assert not (tmp_path / "first").exists()
    with pytest.raises(
        ValueError, match=r"train.mixed_precision: is 'no', but accelerate computes in 'bf16'"
    ):
        build("third", "no", accelerator=Accelerator(mixed_precision="bf16", cpu=True))


def test_run_and_its_unchanged_continuation_warn_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(build_config(tmp_path, train={"save_every": 1}))
        run(build_config(tmp_path, train={"save_every": 1, "steps": 4}))
