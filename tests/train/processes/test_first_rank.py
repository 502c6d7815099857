"""``rollout.ranks = "first"``: the main process decodes for all."""

import pytest

from elastic.models.rollout_model import RolloutModel
from elastic.models.tiny import problems
from elastic.rollout import RolloutEngine
from tests.train.processes.group import assert_same_metrics, assert_same_weights, ddp, fsdp2, train_two
from tests.train.processes.test_uneven import PROBLEMS, equal_in_the_second
from tests.train.tiny_run import build_config, build_model, lines, run

# Of one evaluated problem the second process has none; of the groups that dynamic sampling draws again, the
# main process has none.
OPTIONS = {"dataset": PROBLEMS, "reward": equal_in_the_second, "eval_dataset": problems(1, split="test")}


def config(output, **rollout):
    return build_config(
        output,
        data={"shuffle": False},
        train={"steps": 2, "save_every": 0, "accumulation_steps": 2},
        loss={"kl_coef": 0.05},
        optim={"lr": 1e-2, "eps": 1e-4},
        budget={"draw": "random", "thinking_low": 2},
        rollout={"dynamic_sampling": True} | rollout,
        eval={"every": 2, "count": 1, "budgets": [[3, 4]]},
    )


def broken(*_, **__):
    raise MemoryError("no room for the cache")


def with_one_engine(kind):
    """A kind in which only the main process can make an engine."""

    def accelerator():
        made = kind()
        if not made.is_main_process:
            RolloutEngine.__init__ = broken  # this is a forked process
        return made

    return accelerator


@pytest.mark.parametrize("kind", [ddp, fsdp2])
def test_one_engine_for_two_processes_gives_the_weights_and_metrics_of_one(tmp_path, kind):
    statuses = train_two(config(tmp_path / "two", ranks="first"), with_one_engine(kind), **OPTIONS)
    assert statuses == [0, 0], "see the captured stderr"
    run(config(tmp_path / "one"), **OPTIONS)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert_same_metrics(tmp_path / "one", tmp_path / "two")
    assert max(line.get("sampled_groups", 0) for line in lines(tmp_path / "one" / "metrics.jsonl")) > 4


def test_error_of_the_engine_ends_both_processes_with_its_words_and_a_checkpoint(
    tmp_path, capfd, monkeypatch
):
    generate, calls = RolloutEngine.generate, []

    def second_fails(*arguments, **named):
        calls.append(1)
        return (generate if len(calls) == 1 else broken)(*arguments, **named)

    monkeypatch.setattr(RolloutEngine, "generate", second_fails)
    config = build_config(tmp_path, rollout={"ranks": "first"})
    assert train_two(config, ddp) == [1, 1]
    errors = capfd.readouterr().err
    assert "RuntimeError: the first process could not decode, see there: MemoryError: no room" in errors
    assert "\nMemoryError: no room for the cache" in errors
    assert (tmp_path / "checkpoints" / "step-00000001").is_dir()


def test_engine_that_cannot_be_made_ends_both_processes(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(RolloutEngine, "__init__", broken)
    assert train_two(build_config(tmp_path, rollout={"ranks": "first"}), ddp) == [1, 1]
    assert "another process failed" in capfd.readouterr().err


def test_a_process_that_does_not_decode_has_no_copy():
    model = build_model()
    assert RolloutModel(model, "bf16", shards=True).module is not model
    assert RolloutModel(model, "bf16", shards=True, decodes=False).module is model


def test_in_one_process_it_has_no_effect(tmp_path):
    with pytest.warns(UserWarning, match=r"no effect in this run: rollout.ranks \(there is one process\)"):
        run(build_config(tmp_path, rollout={"ranks": "first"}, train={"steps": 1}))


def test_cuts_are_decoded_in_every_process(tmp_path):
    with pytest.raises(ValueError, match=r"rollout\.ranks: must be 'all' with budget\.cuts.*got 'first'"):
        build_config(tmp_path, budget={"cuts": [2, 4]}, rollout={"ranks": "first"})
