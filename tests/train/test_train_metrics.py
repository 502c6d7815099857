"""What a run leaves behind about itself."""

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from elastic.models.tiny import problems
from elastic.train.run.metrics import JsonLines, console_line
from tests.train.tiny_run import build_config, lines, run

STEP_KEYS = {
    *("step", "reward", "accuracy", "thinking_tokens", "solution_tokens", "completion_tokens"),
    *("cut_share", "stop_share", "solution_cut_share", "loss_token_share", "equal_reward_groups"),
    *("loss", "clip_fraction", "kl", "entropy", "grad_norm", "lr", "epoch", "rollout_tokens"),
    *("skipped_rows", "clip_low_fraction", "clip_high_fraction", "ratio_mean", "update_kl"),
    *("mismatch_mean", "mismatch_abs", "mismatch_p99", "mismatch_max", "mismatch_kl"),
    *("completion_tokens_min", "completion_tokens_p95", "completion_tokens_max", "reward_std"),
    *("tokens_per_second", "seconds", "seconds_rollout", "seconds_reward", "seconds_update"),
}


def test_every_step_has_every_metric_and_they_add_up(tmp_path):
    run(build_config(tmp_path, loss={"kl_coef": 0.01}))
    records = lines(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3]
    for record in records:
        assert record.keys() == STEP_KEYS
        assert all(math.isfinite(value) for value in record.values())
        assert 0 <= record["thinking_tokens"] <= 6
        assert 0 < record["solution_tokens"] <= 5
        assert record["stop_share"] + record["solution_cut_share"] == pytest.approx(1)
        assert 0 < record["entropy"] < math.log(40)
        assert record["rollout_tokens"] == pytest.approx(record["completion_tokens"] * 16)
        assert record["seconds"] >= record["seconds_rollout"] + record["seconds_update"]
    assert records[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert records[2]["kl"] > records[0]["kl"]
    assert records[2]["epoch"] == 1  # 3 steps of 4 of 12 problems


def test_a_total_cap_counts_as_a_cut_of_what_it_ended(tmp_path):
    # One hard cap and nothing forced: a row ends by EOS, or the cap cuts its thought or its solution.
    capped = {"thinking": "unlimited", "solution": "unlimited", "total": 4, "on_eos": "stop"}
    run(build_config(tmp_path, budget=capped, train={"steps": 1}))
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert record["cut_share"] > 0.5, "a thought that never ended"
    cut = record["cut_share"] + record["solution_cut_share"]
    assert record["stop_share"] + cut == pytest.approx(1)


def test_tensorboard_has_the_same_numbers(tmp_path):
    run(
        build_config(tmp_path, logging={"tensorboard": True}, eval={"every": 3, "count": 2}),
        eval_dataset=problems(2),
    )
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("reward")]
    steps = [record for record in lines(tmp_path / "metrics.jsonl") if "reward" in record]
    assert scalars == [(record["step"], pytest.approx(record["reward"])) for record in steps]
    assert [event.step for event in events.Scalars("eval/t6_s5/accuracy")] == [0, 3]


def test_console_tells_every_second_step_and_the_last_in_one_line_each(tmp_path, capsys):
    run(build_config(tmp_path, logging={"console_every": 2}))
    err = capsys.readouterr().err.splitlines()
    assert err.pop(0).startswith("attention of updates: ")
    assert [line.split("  ")[0] for line in err[:2]] == ["step 2/3", "step 3/3"]
    assert err[2:] == [f"the trained model is in {tmp_path / 'final'}"]
    assert "reward" in err[0]
    assert "think" in err[0]


def test_console_line_leaves_out_what_was_not_measured():
    assert console_line({"step": 2, "reward": 0.5, "lr": 1e-6}, 9) == "step 2/9  reward 0.500  lr 1.0e-06"


def test_resumed_file_is_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "eval": 1}\n{"step": 3}\n{"step": 4, "re')
    log = JsonLines(path, last_step=2)
    log.write({"step": 3, "again": float("nan")})
    log.close()
    assert lines(path) == [{"step": 1}, {"step": 2}, {"step": 2, "eval": 1}, {"step": 3, "again": None}]


def test_damage_in_the_middle_of_the_file_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: no JSON object with a step"):
        JsonLines(path, last_step=2)
    assert path.read_text().count("\n") == 3, "nothing is thrown away"


def test_samples_show_texts_and_use_of_the_budgets(tmp_path):
    run(build_config(tmp_path, logging={"samples_every": 2, "samples": 3}))
    samples = lines(tmp_path / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [2, 2, 2]
    expected = {"step", "problem", "answer", "reward", "prompt", "thinking", "solution"}
    expected |= {"thinking_tokens", "solution_tokens", "thinking_cut", "finish_reason"}
    assert all(sample.keys() == expected for sample in samples)
    assert all(sample["prompt"].endswith("<think>") for sample in samples)
    for sample in samples:  # a word is a token
        assert sample["thinking_cut"]
        assert len(sample["thinking"].split()) == sample["thinking_tokens"] == 6
        assert len(sample["solution"].split()) == sample["solution_tokens"] == 5
        assert sample["finish_reason"] == "solution_budget"
