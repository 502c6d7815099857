"""One completion as a reward function sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from elastic.budget import FinishReason
from elastic.data import Problem
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure


@dataclass(eq=False)
class Sample:
    """A row of a rollout with its problem. Texts are decoded when they are first asked for.

    Attributes:
        batch: the rollout record, on the CPU, for whatever else is in it.
        row: of this sample in `batch`.
        problem: with its ``answer``, ``tests`` and ``id``.
        group: all samples of this prompt, this one included.
        thinking_tokens: sampled thinking tokens.
        solution_tokens: sampled solution tokens.
        answered: whether the row came to its solution.
        thinking_cut: whether the thought was ended from outside.
        solution_cut: whether a limit ended the row in its solution.
    """

    batch: RolloutBatch = field(repr=False)
    row: int
    problem: Problem
    group: list["Sample"] = field(repr=False)
    thinking_tokens: int
    solution_tokens: int
    answered: bool
    thinking_cut: bool
    solution_cut: bool

    @property
    def answer(self) -> str:
        """The right answer."""
        return self.problem.answer

    @property
    def columns(self) -> Mapping[str, Any]:
        """The kept columns of the problem's row."""
        return self.problem.columns

    @property
    def prompt_ids(self) -> list[int]:
        """Tokens of the prompt."""
        return self.batch.prompt(self.row)

    @cached_property
    def completion_ids(self) -> list[int]:
        """Tokens of the completion, forced ones and EOS included."""
        return self.batch.tokens[self.row, : int(self.batch.lengths[self.row])].tolist()

    @cached_property
    def prompt(self) -> str:
        """The prompt as the model read it, template and special tokens included."""
        return str(self.batch.tokenizer.decode(self.prompt_ids, skip_special_tokens=False))

    @cached_property
    def completion(self) -> str:
        """The completion, markers and forced texts included, without the EOS that ended it."""
        return self.batch.text(self.row)

    @cached_property
    def thinking(self) -> str:
        """The text between the markers; empty if the row never thought."""
        return self.batch.thinking(self.row)

    @cached_property
    def solution(self) -> str | None:
        """The text behind the thought, which built-in rewards grade; None if it never came to one."""
        return self.batch.solution(self.row) if self.answered else None

    @property
    def finish_reason(self) -> str:
        """What ended the row: ``stop``, ``solution_budget``, ``total_budget`` or ``length``."""
        return FinishReason(int(self.batch.finish_reason[self.row])).text


def samples_of(batch: RolloutBatch, problems: Sequence[Problem]) -> list[Sample]:
    """The R rows of a batch as samples.

    Args:
        batch: on the CPU, with a tokenizer.
        problems: one per prompt of the batch.
    """
    rows = measure(batch)
    names = ("thinking_tokens", "solution_tokens", "answered", "thinking_cut", "solution_cut")
    columns = [getattr(rows, name).tolist() for name in names]
    groups: list[list[Sample]] = [[] for _ in problems]
    samples = []
    for row, (prompt, *facts) in enumerate(zip(batch.prompt_index.tolist(), *columns, strict=True)):
        own = dict(zip(names, facts, strict=True))
        samples.append(Sample(batch, row, problems[prompt], groups[prompt], **own))
        groups[prompt].append(samples[-1])
    return samples
