"""The problems that a configuration names."""

from collections.abc import Sequence

from elastic.data import NAMED_SETS, SETS, Problem, load
from elastic.data.columns import kept_name
from elastic.data.import_path import is_path
from elastic.train.config import TrainConfig


def load_datasets(config: TrainConfig) -> tuple[list[Problem], list[Problem]]:
    """The training problems, and those of the evaluations; none where there are no evaluations.

    Raises:
        ValueError: problems with tests under another reward than ``code``, or without under ``code``.
        ValueError, FileNotFoundError, ModuleNotFoundError: as of `elastic.data.load`.
    """
    data, evaluation = config.data, config.eval
    generated = data.source in NAMED_SETS
    dataset = load(
        data.source,
        count=data.count,
        split=data.split or _split(data.source, "train"),
        seed=data.seed,
        columns=None if generated else dict(data.columns),
        filters=None if generated else data.filters,
        keep=()
        if generated
        else _kept(data.keep_columns, [*config.reward.columns(), *config.budget.columns.values()]),
    )
    config.reward.check_tests("data", data.source, (bool(problem.tests) for problem in dataset))
    if not evaluation.every:
        return dataset, []
    source = evaluation.source or data.source
    generated = source in NAMED_SETS
    evaluated = load(
        source,
        count=evaluation.count if generated or "count" in evaluation.given else None,
        split=evaluation.split or _split(source, "test"),
        seed=evaluation.seed,
        columns=None if generated else dict(evaluation.columns),
        keep=() if generated else _kept(_of_evaluation(config), config.reward.columns(evaluation=True)),
    )
    config.reward.check_tests("eval", source, (bool(problem.tests) for problem in evaluated))
    return dataset, evaluated[: evaluation.count]


def _kept(named: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Columns that a configuration names, and those that functions and budgets need besides."""
    names = {kept_name(path) for path in named}
    return [*named, *dict.fromkeys(path for path in asked if kept_name(path) not in names)]


def _of_evaluation(config: TrainConfig) -> Sequence[str]:
    """Only a correctness reward of one's own looks at columns there."""
    return config.data.keep_columns if is_path(config.reward.name) else ()


def _split(source: str, use: str) -> str | None:
    """The split for a use, where the source is known to have one; None for the source's own default."""
    return use if source in NAMED_SETS or (source in SETS and use in SETS[source].parts) else None
