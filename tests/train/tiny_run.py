"""A random model over the embedded vocabulary that trains in milliseconds, for tests and a subprocess.

As a script: ``tiny_run.py OUTPUT STEPS`` runs `resumable`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elastic.data import Problem
from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train import TrainConfig, Trainer


def build_model(**changes: Any) -> LlamaForCausalLM:
    """Random weights, float32; 2 layers of hidden size 32 over the embedded vocabulary."""
    config = {
        "vocab_size": len(IDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": IDS["<bos>"],
        "eos_token_id": IDS["<eos>"],
        "pad_token_id": IDS["<pad>"],
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**config | changes)).eval()


def build_config(output: Path, **tables: dict[str, Any]) -> TrainConfig:
    """A small valid configuration; keyword arguments are tables merged over it."""
    base: dict[str, dict[str, Any]] = {
        "model": {"path": "tiny", "device": "cpu"},
        "data": {"source": "tiny", "count": 12},
        "reward": {"name": "tiny"},
        "train": {"output_dir": str(output), "steps": 3, "save_every": 0},
        "budget": {"thinking": 6, "solution": 5},
        "rollout": {"prompts_per_step": 4, "samples_per_prompt": 4, "temperature": 1.0, "max_rows": 8},
        "optim": {"lr": 1e-2},
        "logging": {"console_every": 0, "tensorboard": False},
    }
    for name, table in tables.items():
        base[name] = base.get(name, {}) | table
    return TrainConfig.from_table(base)


def nines(response: str, answer: str) -> float:
    """A reward that is easily learned: the share of the solution's words that are 9."""
    words = response.split()[1:]
    return words.count("9") / len(words) if words else 0.0


def run(config: TrainConfig, **options: Any) -> Trainer:
    """Trains the random model from the start; the trainer is returned after its last step."""
    torch.manual_seed(5)
    dataset: list[Problem] = options.pop("dataset", problems(12))
    reward = options.pop("reward", nines)
    model = options.pop("model", None) or build_model()
    tokenizer = options.pop("tokenizer", None) or build_tokenizer()
    trainer = Trainer(config, model, tokenizer, dataset, reward, **options)
    trainer.train()
    return trainer


def resumable(output: Path, steps: int) -> TrainConfig:
    """Every kind of state in play: Adam's moments, a schedule, a reference, random budgets, minibatches."""
    return build_config(
        output,
        train={"steps": steps, "save_every": 2, "minibatches": 2, "epochs_per_batch": 2},
        loss={"kl_coef": 0.01},
        optim={"schedule": "cosine", "warmup_updates": 3},
        budget={"draw": "random", "thinking_low": 2},
        eval={"every": 2, "count": 4, "budgets": [[3, 4]]},
    )


def shared_out(output: Path) -> TrainConfig:
    """What must not depend on the number of processes: groups, draws, counts, the whole batch's deviation."""
    return build_config(
        output,
        train={"steps": 3, "save_every": 2, "accumulation_steps": 2},
        loss={"advantage": "batch"},
        reward={"name": "tests.train.tiny_run:nines"},
        optim={"lr": 1e-2, "eps": 1e-4},
        budget={"draw": "random", "thinking_low": 2},
        rollout={"dynamic_sampling": True},
        eval={"every": 3, "count": 3, "budgets": [[3, 4]]},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(
        resumable(Path(sys.argv[1]), int(sys.argv[2])),
        eval_dataset=problems(4, split="test"),
        callbacks=[lambda *_: time.sleep(0.2)],  # leaves the killer time to hit the middle of the run
    )
