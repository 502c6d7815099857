"""Grades completions, by the same rule in training, evaluation and reports.

Import it by its full name: it needs the rollout record, and with it torch, which rewards of texts do not.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from elastic.rewards import RewardFunction
from elastic.rewards.response import graded_response
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure


def grade(batch: RolloutBatch, references: Sequence[Any], reward: RewardFunction) -> list[float | None]:
    """Correctness of every row.

    A row is graded by its solution alone, as the budget machine saw it: a thought may spell the marker, and a
    model's markers need not be `</think>`. A row that never came to its solution (EOS in its thinking under
    ``on_eos = "stop"``, a hard cut) is graded as an empty response.

    Args:
        batch: R rows, with a tokenizer.
        references: one per prompt of the batch, see `elastic.data.Problem.reference`.
        reward: (graded response, reference) -> float, see `elastic.rewards.response.graded_response`; None
            for a row that it cannot judge. A method ``grade_many(responses, references)``, where it has one,
            gets all rows at once (`elastic.rewards.pool.PooledReward`).

    Returns:
        [R] what the reward said, None included.

    Raises:
        ValueError: the reward of a row is not finite, or ``grade_many`` did not give one for every row.
    """
    prompt_of = batch.prompt_index.tolist()
    responses = [
        graded_response(batch.solution(row) if has_solution else None)
        for row, has_solution in enumerate(measure(batch).answered.tolist())
    ]
    values: list[float | None] = []
    for row, value in enumerate(_values(responses, [references[prompt] for prompt in prompt_of], reward)):
        value = None if value is None else float(value)
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"reward: row {row} (prompt {prompt_of[row]}) got {value}, expected a finite number"
            )
        values.append(value)
    return values


def _values(
    responses: Sequence[str], references: Sequence[Any], reward: RewardFunction
) -> Iterable[float | None]:
    grade_many = getattr(reward, "grade_many", None)
    if grade_many is None:
        return map(reward, responses, references)
    values: Sequence[float | None] = grade_many(responses, references)
    if len(values) != len(responses):
        raise ValueError(f"reward: grade_many gave {len(values)} values for {len(responses)} responses")
    return values
