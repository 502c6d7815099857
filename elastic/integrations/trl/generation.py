"""What a rollout function is asked for: the rows of one generation, with their seeds and sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elastic.sampling import Sampling, row_seed

_TRAINING, _EVALUATION = 0, 1  # streams of seeds
_GROUPS = 2**32  # more rows than any generation has


@dataclass(frozen=True)
class Generation:
    """One call of a rollout function. R rows of this process, one per prompt that it was given.

    Attributes:
        training: whether it is for training, not for an evaluation.
        prompts: R lists of token ids.
        rows: [R] each row's number among those of all processes; groups are whole ones of these.
        group_size: completions of a prompt.
        seed: of this generation, the same on every process.
        sampling: the trainer's.
        max_new_tokens: most tokens of a completion.
    """

    training: bool
    prompts: list[list[int]]
    rows: range
    group_size: int
    seed: int
    sampling: Sampling
    max_new_tokens: int

    @property
    def groups(self) -> list[int]:
        """[R] each row's group among those of all processes."""
        return [row // self.group_size for row in self.rows]

    @property
    def row_seeds(self) -> list[int]:
        """[R] a function of the generation's seed and the row's number alone."""
        return [row_seed(self.seed, row) for row in self.rows]

    @property
    def request_seeds(self) -> list[int]:
        """[R] the rows' seeds where a group is one request: vLLM adds the row's number to the request's."""
        size = self.group_size
        return [self.group_seed(row // size) + row % size for row in self.rows]

    @property
    def whole_groups(self) -> bool:
        """Whether this process's rows are whole groups, one after the other."""
        size = self.group_size
        starts = range(0, len(self.prompts), size)
        return len(self.prompts) % size == 0 and all(
            all(prompt == self.prompts[first] for prompt in self.prompts[first : first + size])
            for first in starts
        )

    def group_seed(self, group: int) -> int:
        """The seed of a request for a whole group."""
        return row_seed(self.seed, _GROUPS + group) >> 1


class Generations:
    """Numbers the generations of a run, so that a resumed one draws the same.

    In training the number is the optimizer step and the count of generations in it: TRL's own counter of
    micro-batches begins anew in a resumed run. In evaluations it is the count alone: evaluations of the same
    problems differ by the weights, not by luck.
    """

    def __init__(self) -> None:
        self._last: tuple[bool, int] | None = None
        self._count = 0

    def next(self, trainer: Any, prompts: list[Any]) -> Generation:
        """The generation that a trainer asks for now.

        Args:
            trainer: a GRPOTrainer.
            prompts: as the dataset has them.

        Raises:
            ValueError: the prompts hold images.
        """
        training, step = trainer.model.training, trainer.state.global_step
        self._count = self._count + 1 if self._last == (training, step) else 0
        self._last = (training, step)
        stream = (_TRAINING, step) if training else (_EVALUATION,)
        seed = trainer.args.seed
        for counter in (*stream, self._count):
            seed = row_seed(seed, counter)
        ids, images, _ = trainer._tokenize_prompts(prompts)
        if images is not None:
            raise ValueError("prompts: expected texts, got images")
        size = trainer.num_generations if training else trainer.num_generations_eval
        first = trainer.accelerator.process_index * len(prompts)
        rows = range(first, first + len(prompts))
        return Generation(
            training=training,
            prompts=[list(prompt) for prompt in ids],
            rows=rows,
            group_size=size,
            seed=seed,
            sampling=Sampling(trainer.temperature, trainer.top_k, trainer.top_p, trainer.min_p or 0.0),
            max_new_tokens=trainer.max_completion_length,
        )
