"""Short GRPO trainings of a random model over the embedded vocabulary, as TRL does them and as we do."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from trl import GRPOConfig

from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import IDS, build_tokenizer

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # of rollout_func, which these tests are about
_OF_TRAINER = ("rollout_func", "reward_funcs", "train_dataset", "eval_dataset", "peft_config")


def save_model(folder: Path, kind: str = "qwen2", **changes: Any) -> str:
    """A random model of two layers with its tokenizer, saved: TRL loads a reference model by its path."""
    config = {
        "vocab_size": len(IDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "bos_token_id": IDS["<bos>"],
        "eos_token_id": IDS["<eos>"],
        "pad_token_id": IDS["<pad>"],
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config | changes))
        model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def prompts(count: int = 6, **columns: list[Any]) -> Dataset:
    """Problems whose prompts have opened thinking, and columns beside them."""
    return Dataset.from_dict({"prompt": [problem.prompt for problem in problems(count)], **columns})


def digits(completions: list[str], **_: Any) -> list[float]:
    """A reward that differs within nearly every group: how many of the words are digits."""
    return [float(sum(word.isdigit() for word in completion.split())) for completion in completions]


def build(trainer_class: Any, model: Any, output: Path, **changes: Any) -> Any:
    """A trainer on the CPU, float32, SGD; keywords are those of the trainer or of its GRPOConfig.

    SGD, because Adam turns a gradient that is 0 but for its rounding into a full step.
    """
    given = {name: changes.pop(name) for name in _OF_TRAINER if name in changes}
    options = {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 16,
        "max_steps": 2,
        "learning_rate": 0.05,
        "optim": "sgd",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 3,
    }
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision at a time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trainer_class(
            model=model,
            args=GRPOConfig(**options | changes),
            processing_class=build_tokenizer(),
            **{"reward_funcs": digits, "train_dataset": prompts(), **given},
        )


def weights(trainer: Any) -> torch.Tensor:
    """All parameters in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def logged(trainer: Any) -> list[dict[str, float]]:
    """What was logged at each step and evaluation, without clocks."""
    return [
        {name: value for name, value in entry.items() if "time" not in name and "per_second" not in name}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]


def prepared(trainer: Any) -> dict[str, Any]:
    """The inputs of the loss for one generation."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
