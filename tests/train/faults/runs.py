"""What the tests of faults share: a run with every kind of state, and its files compared."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from elastic.models.tiny import problems
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import TrainConfig, Trainer
from elastic.train.run.best import best_model
from tests.train.tiny_run import build_config, build_model, lines, nines

CLOCKS = {"seconds", "seconds_rollout", "seconds_reward", "seconds_update", "tokens_per_second"}


def config(output: Path, steps: int = 6, **train: Any) -> TrainConfig:
    """Moments, a schedule, a reference, minibatches, evaluations, samples, the best model."""
    return build_config(
        output,
        train={"steps": steps, "save_every": 2, "keep_checkpoints": 1, "minibatches": 2, "best": "accuracy"}
        | train,
        loss={"kl_coef": 0.01},
        optim={"schedule": "cosine", "warmup_updates": 3},
        budget={"draw": "random", "thinking_low": 2},
        eval={"every": 3, "count": 4, "budgets": [[3, 4]]},
        logging={"samples_every": 1, "samples": 3},
    )


def train(output: Path, steps: int = 6, **options: Any) -> Trainer:
    """The run, from its newest checkpoint, to its end."""
    trainer = fresh(output, steps, **options)
    trainer.train()
    return trainer


def fresh(output: Path, steps: int = 6, **options: Any) -> Trainer:
    """The run's Trainer, not yet started; options replace what it is given."""
    torch.manual_seed(5)
    model = options.pop("model", None) or build_model()
    tokenizer = options.pop("tokenizer", None) or build_tokenizer()
    test = problems(4, split="test")
    return Trainer(config(output, steps), model, tokenizer, problems(12), nines, eval_dataset=test, **options)


def assert_same(output: Path, wanted: Path) -> None:
    """Weights, metrics without clocks, samples, the best model are the same to the bit; no left-overs."""
    for folder in ("final", best_model(wanted).relative_to(wanted)):
        ours, theirs = (load_file(run / folder / "model.safetensors") for run in (output, wanted))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), (folder, name)
    assert records(output) == records(wanted)
    for name in ("samples.jsonl", "best.json"):
        assert (output / name).read_bytes() == (wanted / name).read_bytes()
    assert len(list((output / "best").iterdir())) == 1
    for folder in ("", "checkpoints"):
        assert [p.name for p in (output / folder).iterdir() if p.name.startswith(".")] == []


def records(output: Path) -> list[dict[str, Any]]:
    """The metrics without what a clock says."""
    found = lines(output / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in found]
