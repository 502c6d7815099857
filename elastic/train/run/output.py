"""Whether a run may start in its output directory."""

from pathlib import Path

from elastic.train.config import TrainConfig, changed_keys
from elastic.train.run.checkpoint import checkpoint_paths
from elastic.train.run.metrics import METRICS_FILE

FINAL_DIRECTORY = "final"
CONFIG_FILE = "config.toml"


def check_output(config: TrainConfig) -> None:
    """Refuses to overwrite another run or a finished one. Reads file names and the saved configuration.

    Without a checkpoint a run starts from the beginning and replaces what is there. That is right only for a
    run that was stopped before its first checkpoint.

    Raises:
        ValueError: the directory holds another run, or a finished one without checkpoints; or it holds any
            run and ``train.resume`` is ``never``.
    """
    output = Path(config.train.output_dir)
    never = config.train.resume == "never"
    final, metrics, written = (output / name for name in (FINAL_DIRECTORY, METRICS_FILE, CONFIG_FILE))
    checkpoints = checkpoint_paths(output)
    has_metrics = metrics.exists() and metrics.stat().st_size > 0
    found = checkpoints[-1:] + [path for path in (final,) if path.exists()] + [metrics] * has_metrics
    if never and found:
        raise ValueError(
            f"train.resume: 'never', but {found[0]} exists; choose another train.output_dir or remove it"
        )
    if checkpoints or not found:
        return
    if final.exists():
        raise ValueError(
            f"train.output_dir: {final} holds the model of a finished run, which this run would overwrite, "
            "and there is no checkpoint to go on from; choose another directory or remove it"
        )
    changes = ["its configuration is missing"]
    if written.exists():
        changes, _ = changed_keys(TrainConfig.load(written).to_dict(), config.to_dict())
    if changes:
        raise ValueError(
            f"train.output_dir: {metrics} is of another run, which this one would overwrite "
            f"({'; '.join(changes)}); choose another directory or remove it"
        )
