"""FSDP2: processes that hold parts of the model train as one does."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from elastic.models.tiny import problems
from tests.train.processes.group import assert_same_metrics, assert_same_weights, fsdp2, train_two
from tests.train.tiny_run import build_config, build_model, lines, run


def config(output, **tables):
    tables = {
        "train": {"steps": 2, "save_every": 2, "accumulation_steps": 2},
        "loss": {"advantage": "batch", "kl_coef": 0.05, "old_logprobs": "recompute", "linear": "on"},
        "optim": {"lr": 1e-2, "eps": 1e-4},
        "budget": {"draw": "random", "thinking_low": 2},
        "rollout": {"dynamic_sampling": True},
        "eval": {"every": 2, "count": 3, "budgets": [[3, 4]]},
    } | tables
    return build_config(output, **tables)


# A model of one part gathers it for the backward pass only if a gradient comes to its logits, of which the
# linear loss makes none.
@pytest.mark.parametrize(
    ("tied", "parts"),
    [(True, "transformer_based_wrap"), (False, "transformer_based_wrap"), (True, "no_wrap")],
)
def test_two_processes_give_the_weights_and_metrics_of_one(tmp_path, tied, parts):
    options = {"eval_dataset": problems(4, split="test"), "model": build_model(tie_word_embeddings=tied)}
    kind = partial(fsdp2, auto_wrap_policy=parts)
    assert train_two(config(tmp_path / "two"), kind, **options) == [0, 0], "see the captured stderr"
    run(config(tmp_path / "one"), **options)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert_same_metrics(tmp_path / "one", tmp_path / "two")


def test_mixed_precision_keeps_float32_weights(tmp_path):
    mixed = config(tmp_path / "two", train={"steps": 2, "mixed_precision": "bf16"}, eval={})
    assert train_two(mixed, partial(fsdp2, "bf16")) == [0, 0], "see the captured stderr"
    weights = load_file(tmp_path / "two" / "final" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(line["grad_norm"] > 0 for line in lines(tmp_path / "two" / "metrics.jsonl") if "loss" in line)
