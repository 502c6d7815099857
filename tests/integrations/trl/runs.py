"""Short GRPO trainings of a random Qwen2 over the embedded vocabulary, as TRL does them and as we do."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen2Config, Qwen2ForCausalLM

from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import IDS, build_tokenizer

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # rollout_func is what these tests are about


def save_model(folder: Path, **changes: Any) -> str:
    """A random Qwen2 of two layers with its tokenizer, saved: a reference model is loaded by its path."""
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
        Qwen2ForCausalLM(Qwen2Config(**config | changes)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def prompts(count: int = 6) -> Dataset:
    """Problems whose prompts have opened thinking."""
    return Dataset.from_list([{"prompt": problem.prompt} for problem in problems(count)])


def nines(completions: list[str], **_: Any) -> list[float]:
    """A reward with a signal in most groups: how many of the tokens are 9."""
    return [float(completion.split().count("9")) for completion in completions]


def build(trainer_class: Any, model: str, output: Path, **changes: Any) -> Any:
    """A trainer on the CPU, float32; keyword arguments are those of the trainer or of its GRPOConfig."""
    from trl import GRPOConfig

    names = ("rollout_func", "reward_funcs", "train_dataset", "eval_dataset", "peft_config", "callbacks")
    given = {name: changes.pop(name) for name in names if name in changes}
    options = {
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 16,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 3,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(**options | changes)
        return trainer_class(
            model=model,
            args=arguments,
            processing_class=build_tokenizer(),
            **{"reward_funcs": nines, "train_dataset": prompts(), **given},
        )
