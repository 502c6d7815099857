"""From a configuration file to a finished run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic.train.collect.datasets import load_datasets
from elastic.train.config import TrainConfig
from elastic.train.run.progress import Progress

if TYPE_CHECKING:
    from elastic.train.trainer import Trainer


def train_from_config(config: TrainConfig | str | Path, **options: Any) -> Progress:
    """Checks a configuration, loads what it names, and trains: `build_trainer`, and its `train`."""
    return build_trainer(config, **options).train()


def build_trainer(config: TrainConfig | str | Path, **options: Any) -> "Trainer":
    """Checks a configuration and loads what it names.

    Args:
        config: a `TrainConfig` or the path of a TOML file.
        **options: of `Trainer` besides what the configuration names: ``callbacks``, ``sinks``.

    Raises:
        ValueError: the configuration, the data or the model is unusable; configuration and paths are checked
            before anything is loaded.
        FileNotFoundError: the file, or data it names, is missing.
    """
    if not isinstance(config, TrainConfig):
        config = TrainConfig.load(config)
    config.preflight()
    from elastic.train.collect.evaluation import metric_names
    from elastic.train.run.best import check_best
    from elastic.train.run.lock import check_unlocked
    from elastic.train.run.output import check_output

    dataset, eval_dataset = load_datasets(config)
    config = config.for_problems(len(dataset), len(eval_dataset) or None)
    if config.eval.every:
        check_best(config, metric_names(config.eval, config.budget.budget()))
    check_unlocked(Path(config.train.output_dir))
    check_output(config)
    # Imported only now: mistakes found so far are reported without loading transformers and accelerate.
    from elastic.train.run.accelerator import build_accelerator
    from elastic.train.trainer import Trainer

    accelerator = build_accelerator(config)
    model, tokenizer = _model(config, accelerator)
    return Trainer(
        config,
        model,
        tokenizer,
        dataset,
        eval_dataset=eval_dataset,
        accelerator=accelerator,
        **options,
    )


def _model(config: TrainConfig, accelerator: Any) -> tuple[Any, Any]:
    from elastic.models import load_model

    model = config.model
    return load_model(
        model.path,
        dtype=model.dtype,
        device=accelerator.device,
        attention=model.attention,
        allow_missing=model.allow_missing,
    )
