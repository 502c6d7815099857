"""float16 weights are not trained, and 16-bit weights that are not trained are taken as they are."""

import pytest
import torch
from safetensors.torch import load_file

from elastic.train import TrainConfig
from tests.train.test_train_config import tables
from tests.train.tiny_run import build_config, build_model, run


def narrow_one(model):
    model.model.norm.to(torch.float16)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: build_model().half(),
            r"model.dtype: 20 of 20 trained tensors are float16 .* use model.dtype",
        ),
        (lambda: narrow_one(build_model()), r"model.dtype: 1 of 20 .* float16 \('model.norm.weight'\)"),
    ],
)
def test_float16_weights_are_refused_by_name_before_anything_runs(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        run(build_config(tmp_path), model=model())
    assert not (tmp_path / "metrics.jsonl").exists()


def test_float16_weights_from_a_file_are_refused_before_they_are_loaded():
    config = TrainConfig.from_table(tables(model={"path": "some/model", "dtype": "float16"}))
    with pytest.raises(ValueError, match=r"model.dtype: is float16, .* use model.dtype = .bfloat16."):
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
