"""Grades a batch on all cores.

Rewards leave the long work to other processes: mathematics to the workers of `elastic.rewards.judge`, a
program to its sandbox. So threads suffice, one for each answer that is being graded; they end with the batch.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from elastic.rewards import RewardFunction
from elastic.rewards.cores import default_workers


class PooledReward:
    """A reward that can also grade a batch, with the results that it gives one by one.

    `elastic.rewards.grading.grade` uses it so. Only for rewards that any thread may call, and that give equal
    pairs equal values: those are graded once.

    Args:
        reward: (response, reference) -> float, or None for what it cannot judge.
        workers: answers graded at once; by default `default_workers`.

    Raises:
        ValueError: ``workers`` below 1.
    """

    def __init__(self, reward: RewardFunction, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        self.__name__ = getattr(reward, "__name__", type(reward).__name__)  # as evaluations record it
        self._reward, self.workers = reward, workers or default_workers()

    def __call__(self, response: str, reference: Any) -> float | None:
        """What the reward says of one response."""
        return self._reward(response, reference)

    def grade_many(self, responses: Sequence[str], references: Sequence[Any]) -> list[float | None]:
        """What the reward says of each response, in their order.

        Where this raises, an interruption included, no further response is begun, and nobody waits for those
        that are being graded: they end by their own limits.

        Args:
            responses: [R] texts.
            references: [R] what each is compared with.

        Raises:
            ValueError: their numbers differ.
            Exception: what the reward raised first, by the order of the responses.
        """
        # By identity: rows of one problem share its tests, which may hold lists and have no hash.
        keys = [(text, id(reference)) for text, reference in zip(responses, references, strict=True)]
        jobs = dict(zip(keys, zip(responses, references, strict=True), strict=True))
        threads = ThreadPoolExecutor(self.workers, thread_name_prefix="grading")
        try:
            grades = threads.map(lambda pair: self._reward(*pair), jobs.values())
            values = dict(zip(jobs, grades, strict=True))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        return [values[key] for key in keys]
