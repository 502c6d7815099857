"""Training curves, as the report's payload has them."""

from collections.abc import Iterable
from typing import Any

from elastic.evaluate.report.payload.run import ReportRun, Training
from elastic.evaluate.report.payload.thinned import thinned

MOST_POINTS = 300  # of a curve: a page shows no more
# metric of a step: (title, unit)
_METRICS = {
    "reward": ("reward", ""),
    "accuracy": ("share of the rollouts that are right", ""),
    "thinking_tokens": ("thinking tokens of a rollout", "tokens"),
    "solution_tokens": ("solution tokens of a rollout", "tokens"),
    "completion_tokens": ("all tokens of a rollout", "tokens"),
    "cut_share": ("share of the thoughts that were cut", ""),
    "stop_share": ("share of the rollouts that ended by themselves", ""),
    "entropy": ("entropy of the next token", "nats"),
    "kl": ("KL to the starting model", "nats"),
    "grad_norm": ("norm of the gradient", ""),
    "clip_fraction": ("share of the tokens whose ratio was clipped", ""),
    "equal_reward_groups": ("share of the groups with equal rewards", ""),
}
_EVALUATED = {
    "accuracy": ("accuracy under {}", ""),
    "thinking_tokens": ("thinking tokens under {}", "tokens"),
}


def training(runs: Iterable[ReportRun]) -> list[dict[str, Any]]:
    """One record per metric and training, metrics in the order of the table above, evaluations behind.

    A curve of more than `MOST_POINTS` points keeps evenly spaced ones, the first and the last among them.
    """
    found = [
        record for run in runs for item in run.trainings for record in _curves(item, run.hides(item.name))
    ]
    order = list(dict.fromkeys([*_METRICS, *(record["metric"] for record in found)]))
    return sorted(found, key=lambda record: order.index(record["metric"]))


def _curves(item: Training, hidden: bool) -> list[dict[str, Any]]:
    curves = []
    for metric in dict.fromkeys(name for record in item.records for name in record):
        points = [(record["step"], record[metric]) for record in item.records if metric in record]
        if (title := _title(metric)) is None or all(value is None for _, value in points):
            continue
        kept = thinned(points, MOST_POINTS)
        about = {"run": item.label or item.name, "metric": metric, "title": title[0], "unit": title[1]}
        values = [value if value is None else float(f"{value:.5g}") for _, value in kept]
        curves.append(about | {"hidden": hidden, "steps": [step for step, _ in kept], "values": values})
    return curves


def _title(metric: str) -> tuple[str, str] | None:
    """Title and unit; None for a metric that the report leaves out."""
    if metric.startswith("reward/") and metric.endswith("/mean"):  # as in reward/brevity/mean
        return f"reward of {metric.split('/')[1]}", ""
    if not metric.startswith("eval/"):
        return _METRICS.get(metric)
    _, budget, name = metric.split("/")  # as in eval/t40_s64/accuracy
    if name not in _EVALUATED:
        return None
    title, unit = _EVALUATED[name]
    return title.format(budget.replace("_", ", ").replace("inf", " without limit")), unit
