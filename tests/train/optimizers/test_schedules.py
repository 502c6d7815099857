"""The rate is a function of the update's number."""

from pathlib import Path
from typing import Any

import pytest

from elastic.train.config.optim import OptimConfig
from elastic.train.update.learning_rate import learning_rate
from tests.train.tiny_run import lines, run


def rates(updates: int, **options: Any) -> list[float]:
    config = OptimConfig(lr=1.0, **options)
    return [learning_rate(config, update, updates) for update in range(updates)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # half of eight: four updates below the peak
        (
            {"schedule": "warmup_stable_decay", "decay_ratio": 0.5, "warmup_updates": 2},
            [0.5, 1, 1, 1, 0.75, 0.5, 0.25, 0],
        ),
        (
            {"schedule": "warmup_stable_decay", "decay_ratio": 0.25, "final_lr": 0.5},
            [1, 1, 1, 1, 1, 1, 0.75, 0.5],
        ),
        # the decay does not begin before the warm-up is over
        (
            {"schedule": "warmup_stable_decay", "decay_ratio": 1.0, "warmup_updates": 4},
            [0.25, 0.5, 0.75, 1, 1, 2 / 3, 1 / 3, 0],
        ),
        (
            {"schedule": "inverse_sqrt", "warmup_updates": 2},
            [0.5, 1, *((2 / done) ** 0.5 for done in range(3, 9))],
        ),
        ({"warmup_ratio": 0.3}, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),  # 2.4 updates: 3
        ({"schedule": "linear", "warmup_ratio": 0.375}, [1 / 3, 2 / 3, 1, 1, 0.75, 0.5, 0.25, 0]),
        ({"warmup_ratio": 1.0}, [n / 8 for n in range(1, 9)]),
    ],
)
def test_rates_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    assert rates(8, **options) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "warmup_stable_decay"])
def test_the_last_update_has_the_final_rate(schedule: str) -> None:
    for updates in (2, 3, 50):
        assert rates(updates, schedule=schedule, final_lr=0.2)[-1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_updates": 2, "warmup_ratio": 0.1}, "optim.warmup_ratio: must be 0 with .*= 2, got 0.1"),
        ({"schedule": "inverse_sqrt"}, "'inverse_sqrt' needs optim.warmup_updates or warmup_ratio"),
        ({"warmup_ratio": 1.5}, "optim.warmup_ratio: must be at most 1, got 1.5"),
        ({"schedule": "wsd"}, "optim.schedule: must be 'constant' or .* got 'wsd'"),
    ],
)
def test_schedules_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**options)


def test_a_run_follows_its_schedule(make_config: Any) -> None:
    optim = {"lr": 1e-3, "schedule": "warmup_stable_decay", "decay_ratio": 0.5, "warmup_ratio": 0.25}
    config = make_config(optim=optim, train={"steps": 2, "minibatches": 2})
    run(config)
    records = lines(Path(config.train.output_dir) / "metrics.jsonl")
    assert [record["lr"] for record in records] == pytest.approx([1e-3, 0.0], abs=1e-12)
