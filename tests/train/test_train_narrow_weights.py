"""16-bit weights are not trained: small updates would get lost in their rounding."""

import pytest
import torch
from safetensors.torch import load_file

from elastic.train import TrainConfig
from tests.train.test_train_config import tables
from tests.train.tiny_run import build_config, build_model, run


def narrow_one(model):
    model.model.norm.to(torch.bfloat16)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: build_model().bfloat16(), r"model.dtype: 20 of 20 trained tensors .* is bfloat16\)"),
        (lambda: build_model().half(), r"model.dtype: 20 of 20 trained tensors .* is float16\)"),
        (
            lambda: narrow_one(build_model()),
            r"model.dtype: 1 of 20 trained tensors .*'model.norm.weight' is bfloat16\).*lr = 1e-06",
        ),
    ],
)
def test_narrow_weights_are_refused_by_name_before_anything_runs(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path, optim={"lr": 1e-6}), model=model())
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_from_a_file_are_refused_before_they_are_loaded(tmp_path, dtype):
    config = TrainConfig.from_table(tables(model={"path": "some/model", "dtype": dtype}))
    with pytest.raises(
        ValueError, match=rf"model.dtype: .* rounding of {dtype}; use model.dtype = .float32."
    ):
        config.preflight()


def frozen_narrow():
    """Embeddings that are not trained, in 16 bits, first among the weights; the rest float32."""
    model = build_model(tie_word_embeddings=False)
    model.model.embed_tokens.to(torch.bfloat16).requires_grad_(False)
    assert model.dtype == torch.bfloat16
    return model


def test_narrow_weights_that_are_not_trained_are_taken_and_resumed_exactly(tmp_path):
    config = {"save_every": 2, "steps": 4}
    run(build_config(tmp_path / "whole", train=config), model=frozen_narrow())
    run(build_config(tmp_path / "parts", train=config | {"steps": 2}), model=frozen_narrow())
    run(build_config(tmp_path / "parts", train=config), model=frozen_narrow())
    whole, parts = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("whole", "parts"))
    assert whole["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
