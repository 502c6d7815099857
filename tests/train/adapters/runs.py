"""Adapters around the random model of `tests.train.tiny_run`."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from elastic.models import tiny
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train import TrainConfig
from tests.train.tiny_run import build_config, build_model


def lora_config(output: Path, **tables: dict[str, Any]) -> TrainConfig:
    """A small valid configuration with an adapter of rank 4."""
    tables["adapter"] = {"rank": 4, "alpha": 8} | tables.get("adapter", {})
    tables["optim"] = {"lr": 0.05} | tables.get("optim", {})
    return build_config(output, **tables)


def adapted(model: Any = None, fill: float = 0.0, **options: Any) -> Any:
    """A `PeftModel` with LoRA of rank 4; with `fill` its B (or A) is not zero but normal, as if trained."""
    values = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = get_peft_model(build_model() if model is None else model, LoraConfig(**values))
        for name, parameter in found.named_parameters():
            if fill and parameter.requires_grad and "lora_A" not in name:
                nn.init.normal_(parameter, std=fill)
    return found.eval()


def base_directory(path: Path, **changes: Any) -> Path:
    """A Hugging Face directory of the random model, with the embedded tokenizer."""
    build_model(**changes).save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return path


def prompts(count: int = 3) -> list[list[int]]:
    """Prompts of different lengths that end inside a thought."""
    return [[IDS["<bos>"], *range(5, 7 + row), IDS["<think>"]] for row in range(count)]


__all__ = ["adapted", "base_directory", "lora_config", "prompts", "tiny"]
