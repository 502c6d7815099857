"""The model of an engine as vLLM loads it: a folder, and weights under the names of a checkpoint."""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from elastic.models import tiny
from elastic.models.loading import load_tokenizer
from elastic.models.model_files import find_files, read_config
from elastic.models.quiet import quiet_transformers


def outline(path: str | os.PathLike) -> tuple[Any, Any]:
    """A model without weights, and its tokenizer.

    Args:
        path: as of `elastic.load_model`.

    Returns:
        The model, on the device "meta", with its generation config; the tokenizer.

    Raises:
        ValueError: as of `elastic.load_model`.
    """
    tokenizer, path = load_tokenizer(path), folder(path)
    with quiet_transformers():
        options = find_files(path)
        config, _ = read_config(path, options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        with suppress(OSError):  # many models have none
            model.generation_config = GenerationConfig.from_pretrained(path, **options)
    return model, tokenizer


def folder(path: str | os.PathLike) -> str | os.PathLike:
    """What vLLM is given for a name that `elastic.load_model` takes."""
    return tiny.checkpoint() if path == tiny.NAME else path


def describe(model: Any, tokenizer: Any, where: Path) -> None:
    """Writes everything of a loaded model but its weights, for vLLM's `load_format="dummy"`."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(where)
    tokenizer.save_pretrained(where)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(where)


def checkpoint_weights(model: Any) -> dict[str, Tensor]:
    """The weights of a loaded model under the names that a checkpoint of it has; tied ones once.

    They are the model's own tensors, except where a checkpoint stores them in another form.
    """
    from transformers.core_model_loading import revert_weight_conversion

    tied = getattr(model, "all_tied_weights_keys", None) or {}
    own = {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in tied}
    return revert_weight_conversion(model, own)
