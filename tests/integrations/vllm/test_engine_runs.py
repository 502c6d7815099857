"""Trainings and evaluations whose tokens vLLM decodes: they are those of the own engine."""

import gc
import json

import pytest
import torch
from safetensors.torch import load_file

from elastic.commands.cli import main
from elastic.models.tiny import problems

CLOCKS = ("seconds", "seconds_rollout", "seconds_reward", "seconds_update", "tokens_per_second")


@pytest.fixture
def train(vllm, tmp_path):
    """Trains a small model, its head tied to its embeddings, and gives its final weights and metrics."""
    pytest.importorskip("accelerate")
    from tests.train.tiny_run import build_config, build_model, lines, run

    def call(name, engine, steps):
        config = build_config(
            tmp_path / name,
            rollout={"engine": engine, "top_p": 0.9},
            train={"steps": steps, "save_every": 1, "minibatches": 2},
            eval={"every": 1, "count": 4, "budgets": [[3, 4]]},
        )
        # vLLM on a CPU has no kernels for heads of 16.
        trainer = run(config, model=build_model(hidden_size=64), eval_dataset=problems(4, split="test"))
        if engine == "vllm":
            trainer._collector._engine.close()
        del trainer
        gc.collect()
        metrics = [
            {key: value for key, value in line.items() if key not in CLOCKS}
            for line in lines(tmp_path / name / "metrics.jsonl")
        ]
        return load_file(tmp_path / name / "final" / "model.safetensors"), metrics

    return call


def test_a_training_is_that_of_the_own_engine(train):
    """The reward counts tokens of solutions, so equal rewards at each step need equal rows and weights."""
    own, by_own = train("own", "own", 3)
    found, by_vllm = train("vllm", "vllm", 3)
    assert [line.keys() for line in by_vllm] == [line.keys() for line in by_own]
    for line, wanted in zip(by_vllm, by_own, strict=True):
        assert line == pytest.approx(wanted, abs=1e-3)
    assert by_vllm[-1]["step"] == 3
    for name, weight in own.items():
        torch.testing.assert_close(found[name], weight, atol=1e-3, rtol=0)


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(train):
    whole, metrics = train("whole", "vllm", 2)
    train("parts", "vllm", 1)
    found, again = train("parts", "vllm", 2)
    assert again == metrics
    for name, weight in whole.items():
        assert torch.equal(found[name], weight), name


def test_an_evaluation_is_that_of_the_own_engine(vllm, tmp_path):
    def evaluate(engine):
        out = tmp_path / engine
        command = ["eval", "tiny", "--data", "tiny", "--count", "6", "--methods", "separate,vanilla"]
        command += ["--budgets", "8:24", "--temperature", "1", "--out", str(out), "--engine", engine]
        assert main(command) == 0
        return json.loads((out / "eval.json").read_text())

    own, found = evaluate("own"), evaluate("vllm")
    assert found["rows"] == own["rows"]
    assert found["settings"]["engine"] == "vllm"
