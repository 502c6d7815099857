"""Grades a batch on all cores.

Rewards leave the long work to other processes: mathematics to the workers of `elastic.rewards.judge`, a
program to its sandbox. So threads suffice, one for each answer that is being graded; they end with the batch.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from elastic.rewards import RewardFunction
from elastic.rewards.cores import default_workers

_Waiting = SimpleQueue[tuple[Future[float | None], tuple[str, Any]]]


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
        grades = dict(zip(jobs, self._begun(jobs.values()), strict=True))
        try:
            return [grades[key].result() for key in keys]
        finally:
            for grade in grades.values():
                grade.cancel()

    def _begun(self, pairs: Iterable[tuple[str, Any]]) -> list[Future[float | None]]:
        """What the reward will have said of each pair.

        An interpreter that ends does not wait for these threads, as it would for those of an executor: a
        program may take minutes.
        """
        grades: list[Future[float | None]] = []
        waiting: _Waiting = SimpleQueue()
        for pair in pairs:
            grades.append(Future())
            waiting.put((grades[-1], pair))
        for _ in range(min(self.workers, len(grades))):
            threading.Thread(target=self._grade, args=(waiting,), name="grading", daemon=True).start()
        return grades

    def _grade(self, waiting: _Waiting) -> None:
        """Grades one waiting pair after another until there is none."""
        while True:
            try:
                grade, pair = waiting.get_nowait()
            except Empty:
                return
            if not grade.set_running_or_notify_cancel():
                continue
            try:
                grade.set_result(self._reward(*pair))
            except BaseException as error:  # for the thread that waits for the grade
                grade.set_exception(error)
