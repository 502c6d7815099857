"""The problems that a configuration names."""

from elastic.data import Problem, load
from elastic.data.loading import NAMED_SETS
from elastic.train.config import TrainConfig


def load_datasets(config: TrainConfig) -> tuple[list[Problem], list[Problem]]:
    """The training problems, and those of the evaluations; none where there are no evaluations.

    Raises:
        ValueError, FileNotFoundError: as of `elastic.data.load`.
    """
    data, evaluation = config.data, config.eval
    dataset = load(data.source, count=data.count, seed=data.seed, split="train")
    if not evaluation.every:
        return dataset, []
    source = evaluation.source or data.source
    if source in NAMED_SETS or "count" in evaluation.given:
        return dataset, load(source, count=evaluation.count, seed=evaluation.seed, split="test")
    return dataset, load(source)[: evaluation.count]
