"""One part of a replication: a chain of trainings with one seed, and what each of its models answers.

Parts share nothing but the base, so they may run in any order, and in processes of their own.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from elastic.commands.parts.samples import write_samples
from elastic.commands.parts.training import train, training_config
from elastic.commands.replicate import plan
from elastic.commands.replicate.answers import SwappedEngine, answer, open_engine, samples_path
from elastic.commands.replicate.config import ReplicateConfig, from_json
from elastic.commands.replicate.plan import Training
from elastic.evaluate.sample import Sample
from elastic.models import load_model, tiny
from elastic.models.quiet import quiet_transformers
from elastic.rollout import RolloutEngine

Model = tuple[Any, Any]  # and its tokenizer


def run_part(part: str, out: Path, settings: str) -> None:
    """Does what is left of a part.

    Args:
        part: one of `elastic.commands.replicate.plan.parts`.
        out: the replication's directory; runs are in `out/runs`, samples in `out/samples`.
        settings: a `ReplicateConfig` as JSON.
    """
    config = from_json(settings)
    chain, _, number = part.rpartition("-")
    seed = int(number)
    if chain == plan.BASE:
        _answer_all(plan.BASE, open_engine(*load(out / plan.BASE, config), config), config, seed, out)
        return
    for training in (plan.chains(config) | plan.ablations(config))[chain]:
        if missing(training.name, config, seed, out):
            engine = open_engine(*_trained(training, config, seed, out), config)
            _answer_all(training.name, engine, config, seed, out)


def say(line: str) -> None:
    """A line on stderr."""
    print(f"replicate: {line}", file=sys.stderr, flush=True)


def load(path: str | Path, config: ReplicateConfig) -> Model:
    """A model of the replication and its tokenizer."""
    with quiet_transformers():
        return load_model(path, dtype="float32", device=config.device)


def missing(model: str, config: ReplicateConfig, seed: int, out: Path) -> list[str]:
    """The arms of a model whose samples are not there yet."""
    names = [arm.name for arm in (*plan.arms(config)[model], *(plan.swaps(config) if model == "e1" else ()))]
    return [name for name in names if not samples_path(out, name, seed).exists()]


def run_dir(name: str, seed: int, out: Path) -> Path:
    """Where a training keeps its run."""
    return out / "runs" / f"{name}-{seed}"


def _trained(training: Training, config: ReplicateConfig, seed: int, out: Path) -> Model:
    """Runs what is left of a training; its model."""
    base = training.start == plan.BASE
    start = out / plan.BASE if base else run_dir(training.start, seed, out) / "final"
    run = run_dir(training.name, seed, out)
    if training.continued is not None and not run.exists():
        _copy(run_dir(training.continued, seed, out), run)
    model, tokenizer = load(start, config)
    settings = training_config(
        config,
        model=str(start),
        device=config.device,
        seed=seed,
        steps=training.steps,
        run_dir=run,
        method=training.method,
        tables=training.tables,
    )
    started = time.monotonic()
    train(settings, model, tokenizer, tiny.reward, f"replicate: {training.name}-{seed}")
    say(f"{training.name}-{seed}: trained in {time.monotonic() - started:.0f} s")
    return model.eval(), tokenizer


def _copy(source: Path, target: Path) -> None:
    """Copies a directory; a kill leaves a whole copy or none."""
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)


def _answer_all(name: str, engine: RolloutEngine, config: ReplicateConfig, seed: int, out: Path) -> None:
    """Answers the arms of a model that are missing."""
    left = missing(name, config, seed, out)
    for arm in plan.arms(config)[name]:
        if arm.name in left:
            _keep(answer(engine, arm, config, seed), arm.name, seed, out)
    if name == "e1":
        base = open_engine(*load(out / plan.BASE, config), config)
        engines = {"swap_solution": (base, engine), "swap_thinking": (engine, base)}
        for arm in plan.swaps(config):
            if arm.name in left:
                _keep(answer(SwappedEngine(*engines[arm.name]), arm, config, seed), arm.name, seed, out)


def _keep(samples: list[Sample], arm: str, seed: int, out: Path) -> None:
    write_samples(samples_path(out, arm, seed), samples)
    right = sum(sample.correct or 0 for sample in samples) / len(samples)
    say(f"{arm}-{seed}: {len(samples)} answers, {right:.1%} right over all budgets")
