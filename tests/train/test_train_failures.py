"""Nothing is lost when something fails: completions and state stay, and the run goes on as if nothing was."""

import itertools
import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rollout import RolloutBatch
from elastic.train import Trainer
from tests.train.tiny_run import build_config, build_model, nines, run

CLOCKS = {"seconds", "seconds_rollout", "seconds_reward", "seconds_update", "tokens_per_second"}


def lines(output):
    records = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in records]


def weights(output):
    return load_file(output / "final" / "model.safetensors")


def assert_same(output, expected):
    assert lines(output) == lines(expected)
    ours, wanted = weights(output), weights(expected)
    for name, tensor in wanted.items():
        assert torch.equal(ours[name], tensor), name


class Breaking:
    """`nines`, but the n-th call of a run does something else."""

    def __init__(self, call, action):
        self.call, self.action, self.calls = call, action, 0

    def __call__(self, response, answer):
        self.calls += 1
        return self.action() if self.calls == self.call else nines(response, answer)


def give_up():
    raise KeyError("the grader is gone")


TABLES = {"train": {"steps": 4}, "optim": {"schedule": "cosine"}, "loss": {"kl_coef": 0.01}}
ROWS = 16  # of a step


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    run(build_config(output, **TABLES))
    return output


@pytest.mark.parametrize(
    ("action", "error"),
    [(give_up, KeyError), (lambda: float("nan"), ValueError), (lambda: "good", ValueError)],
)
@pytest.mark.parametrize("step", [1, 3])
def test_failing_reward_leaves_its_batch_and_a_checkpoint_and_the_run_goes_on(
    tmp_path, uninterrupted, capsys, action, error, step
):
    config = build_config(tmp_path, **TABLES)
    with pytest.raises(error) as caught:
        run(config, reward=Breaking((step - 1) * ROWS + 5, action))
    saved = tmp_path / "failed" / f"step-{step:08d}-rollouts-process-0.safetensors"
    checkpoint = tmp_path / "checkpoints" / f"step-{step - 1:08d}"
    told = capsys.readouterr().err + "".join(getattr(caught.value, "__notes__", ()))
    assert all(str(path) in told for path in (saved, checkpoint))
    batch = RolloutBatch.load(saved, build_tokenizer())
    assert len(batch) == ROWS
    assert len(batch.solution(0)) > 0
    assert checkpoint.is_dir()
    run(config)
    assert_same(tmp_path, uninterrupted)


def test_same_trainer_goes_on_after_a_failure_and_a_finished_one_does_nothing(tmp_path, uninterrupted):
    torch.manual_seed(5)
    reward = Breaking(2 * ROWS + 5, give_up)
    calls = []
    trainer = Trainer(
        build_config(tmp_path, **TABLES),
        build_model(),
        build_tokenizer(),
        problems(12),
        reward,
        callbacks=[lambda progress, record: calls.append(progress.step)],
    )
    with pytest.raises(KeyError):
        trainer.train()
    assert trainer.train().step == 4
    assert_same(tmp_path, uninterrupted)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert trainer.train().step == 4
    assert calls == [1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.fixture
def interruptible():
    """A shell's background job ignores SIGINT, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_interruption_leaves_a_checkpoint_and_the_run_goes_on(tmp_path, uninterrupted, number, error):
    config = build_config(tmp_path, **TABLES)
    with pytest.raises(error):
        run(config, reward=Breaking(2 * ROWS + 5, lambda: signal.raise_signal(number)))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert not (tmp_path / "failed").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run(config)
    assert_same(tmp_path, uninterrupted)


def test_gradient_that_is_not_finite_leaves_batch_and_checkpoint(tmp_path, uninterrupted):
    model, seen = build_model(), []

    def broken(grad):
        seen.append(1)
        return grad * float("nan") if len(seen) == 3 else grad

    model.model.norm.weight.register_hook(broken)
    config = build_config(tmp_path, **TABLES)
    with pytest.raises(RuntimeError, match="step 3: the gradient's norm is nan"):
        run(config, model=model)
    assert (tmp_path / "failed" / "step-00000003-rollouts-process-0.safetensors").is_file()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    run(config)
    assert_same(tmp_path, uninterrupted)


def test_within_the_updates_of_a_step_no_checkpoint_is_written_and_the_same_trainer_goes_back(tmp_path):
    tables = {"train": {"steps": 4, "minibatches": 2, "save_every": 2}}
    run(build_config(tmp_path / "whole", **tables))
    torch.manual_seed(5)
    config = build_config(tmp_path / "broken", **tables)
    trainer = Trainer(config, build_model(), build_tokenizer(), problems(12), nines)
    original, calls = trainer.optimizer.step, []

    def step():
        calls.append(1)
        if len(calls) == 6:  # the second of step 3
            raise OSError("device lost")
        original()

    trainer.optimizer.step = step
    with pytest.raises(OSError, match="device lost"):
        trainer.train()
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()] == ["step-00000002"]
    trainer.train()
    assert_same(tmp_path / "broken", tmp_path / "whole")


def test_within_the_updates_and_without_a_checkpoint_the_same_trainer_says_so(tmp_path):
    config = build_config(tmp_path, train={"minibatches": 2})
    trainer = Trainer(config, build_model(), build_tokenizer(), problems(12), nines)

    def step():
        raise OSError("device lost")

    trainer.optimizer.step = step
    for error, message in (
        (OSError, "device lost"),
        (RuntimeError, "in the middle of a step .* no checkpoint"),
    ):
        with pytest.raises(error, match=message):
            trainer.train()


@pytest.mark.parametrize("step", [0, 2])
def test_reward_that_fails_in_an_evaluation_is_evaluated_again(tmp_path, step):
    tables = TABLES | {"eval": {"every": 2, "count": 4, "budgets": [[3, 4]]}}
    test = problems(4, split="test")
    run(build_config(tmp_path / "whole", **tables), eval_dataset=test)
    config = build_config(tmp_path / "broken", **tables)
    call = 2 if step == 0 else 4 + 2 * ROWS + 2
    with pytest.raises(KeyError):
        run(config, eval_dataset=test, reward=Breaking(call, give_up))
    name = f"step-{step:08d}-evaluation-process-0.safetensors"
    assert [path.name for path in (tmp_path / "broken" / "failed").iterdir()] == [name]
    run(config, eval_dataset=test)
    assert_same(tmp_path / "broken", tmp_path / "whole")


def skip_first_of_four(then):
    calls = itertools.count()
    return lambda response, answer: None if (call := next(calls)) % 4 == 0 else then(call % 4, response)


def test_means_of_rewards_are_over_rows_that_have_one(tmp_path):
    tables = {"train": {"steps": 1}, "logging": {"samples_every": 1, "samples": ROWS}}
    run(build_config(tmp_path, **tables), reward=skip_first_of_four(lambda _, response: nines(response, "")))
    (record,) = lines(tmp_path)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [sample["reward"] is None for sample in samples] == [row % 4 == 0 for row in range(ROWS)]
    kept = [sample["reward"] for row, sample in enumerate(samples) if row % 4]
    assert record["reward"] == record["accuracy"] == pytest.approx(sum(kept) / len(kept))
    assert record["skipped_rows"] == 4


def test_row_without_a_reward_is_not_there_for_its_groups_advantages(tmp_path):
    reward = skip_first_of_four(lambda place, _: [None, 1.0, 0.0, 1.0][place])
    trainer = Trainer(build_config(tmp_path), build_model(), build_tokenizer(), problems(12), reward)
    collected = trainer._collector.collect(0, 0)
    # Of 1, 0, 1: mean 2/3, deviation 0.57735.
    wanted = torch.tensor([0.0, 0.57725, -1.15450, 0.57725] * 4)
    torch.testing.assert_close(collected.experience.advantages, wanted, rtol=0, atol=1e-4)
    assert collected.experience.loss_rows == 12
    assert not any(bool(mask.any()) for mask in collected.experience.mask[::4])


def test_skipped_rows_change_neither_loss_nor_advantages_of_the_others(model, tokenizer):
    from elastic.budget import Budget
    from elastic.rollout import RolloutEngine
    from elastic.sampling import Sampling
    from elastic.train.collect.experience import Experience
    from elastic.train.config.updates import LossConfig
    from elastic.train.run.accelerator import build_accelerator
    from elastic.train.update.policy import Policy
    from elastic.train.update.stats import UpdateStats

    engine = RolloutEngine(model, tokenizer, max_rows=8)
    prompts = [problem.prompt for problem in problems(3)]
    batch = engine.generate(prompts, Budget(3, 4), 4, Sampling(1.0, seed=3), progress=False)
    advantages = torch.linspace(-1, 1, len(batch))
    skipped = torch.zeros(len(batch), dtype=torch.bool)
    skipped[[0, 5, 11]] = True
    kept = (~skipped).nonzero()[:, 0].tolist()
    whole = Experience.from_rollout(batch, torch.where(skipped, 0, advantages), skipped=skipped)
    without = Experience.from_rollout(batch[kept], advantages[kept])
    accelerator = build_accelerator(build_config(Path("unused")))
    for loss in ("grpo", "dapo", "dr_grpo", "gspo"):
        gradients = []
        for experience in (whole, without):
            model.zero_grad()
            policy = Policy(
                model, accelerator, LossConfig(loss=loss, entropy_coef=0.1), temperature=1.0, max_length=9
            )
            policy.backward(experience, experience.loss_tokens, experience.loss_rows, UpdateStats())
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7, msg=loss)


@pytest.mark.parametrize("advantage", ["group", "batch", "rloo"])
def test_step_without_any_reward_changes_nothing_but_momentum(tmp_path, advantage):
    model = build_model()
    before = [p.detach().clone() for p in model.parameters()]
    config = build_config(tmp_path, train={"steps": 2}, loss={"advantage": advantage})
    run(config, model=model, reward=lambda response, answer: None)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert [record["skipped_rows"] for record in lines(tmp_path)] == [ROWS, ROWS]
    assert all(record["equal_reward_groups"] == 1 for record in lines(tmp_path))
    assert all(record["reward"] is record["accuracy"] is None for record in lines(tmp_path))


def test_evaluation_without_any_grade_has_no_accuracy(tmp_path):
    config = build_config(tmp_path, train={"steps": 1}, eval={"every": 1, "count": 4})
    run(config, eval_dataset=problems(4, split="test"), reward=lambda response, answer: None)
    found = [r for r in lines(tmp_path) if any(name.startswith("eval/") for name in r)]
    assert found
    for record in found:
        assert [v for name, v in record.items() if name.endswith("/accuracy")] == [None]
        assert [v > 0 for name, v in record.items() if name.endswith("/thinking_tokens")] == [True]


def test_reward_of_a_problem_without_an_answer_may_be_none(tmp_path):
    dataset = [*problems(11), Problem(problems(12)[11].prompt, "", "open")]
    run(
        build_config(tmp_path),
        dataset=dataset,
        reward=lambda response, answer: nines(response, answer) if answer else None,
    )
    assert sum(record["skipped_rows"] for record in lines(tmp_path)) == 4
