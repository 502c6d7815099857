"""What of a completion is graded: the same in training, in evaluations while it runs, and behind it."""

from collections.abc import Sequence

import pytest
import torch

from elastic.budget import Budget, FinishReason, Phase, Source
from elastic.budget.markers import Markers
from elastic.data import Problem
from elastic.evaluate import EvalSet, evaluate
from elastic.models.tiny import reward
from elastic.rewards import math_reward
from elastic.rewards.grading import grade
from elastic.rollout import RolloutBatch
from elastic.rollout.plan.limits import Limits

T, S = int(Phase.THINKING), int(Phase.SOLUTION)


class Words:
    """One id a word, in the order in which words are first seen."""

    all_special_ids = ()

    def __init__(self) -> None:
        self.known: list[str] = []

    def __len__(self) -> int:
        return len(self.known)

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: object) -> list[str]:
        return [self.decode(ids) for ids in rows]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.known[token] for token in ids]

    def encode(self, text: str, **_: object) -> list[int]:
        self.known += [word for word in dict.fromkeys(text.split()) if word not in self.known]
        return [self.known.index(word) for word in text.split()]

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return " ".join(self.known[token] for token in ids)


def row(
    text: str, thinking: int, reason: FinishReason = FinishReason.STOP, end: str = "</think>"
) -> RolloutBatch:
    """One row of words of which the first `thinking` were emitted in the thought, `end` included."""
    words = Words()
    tokens = torch.tensor([words.encode(text)])
    phase = torch.full_like(tokens, S, dtype=torch.uint8)
    phase[:, :thinking] = T
    length = torch.tensor([tokens.shape[1]])
    return RolloutBatch(
        tokens=tokens,
        source=torch.full_like(phase, int(Source.SAMPLED)),
        phase=phase,
        logprobs=torch.zeros(phase.shape),
        full_logprobs=torch.zeros(phase.shape),
        lengths=length,
        thinking_tokens=length,
        solution_tokens=length,
        thinking_cut=torch.tensor([False]),
        finish_reason=torch.tensor([int(reason)], dtype=torch.uint8),
        initial_phase=torch.full_like(length, T, dtype=torch.uint8),
        initial_thinking=torch.zeros_like(length),
        ended_at=-torch.ones_like(length),
        seeds=length,
        prompt_index=torch.tensor([0]),
        prompts=[[0]],
        markers=Markers((words.encode("[open]")[0],), (words.encode(end)[0],), "[open]", end),
        tokenizer=words,
    )


def test_eos_in_thinking_is_graded_as_no_answer() -> None:
    # Under on_eos = "stop" the row ends in its thinking; what it thought is no answer.
    assert grade(row("so answer is 4 <eos>", 5), ["4"], reward) == [0.0]
    assert grade(row("so </think> answer is 4 <eos>", 2), ["4"], reward) == [1.0]


def test_solution_that_repeats_the_marker_keeps_its_answer() -> None:
    batch = row("so </think> ok </think> answer is 4", 2, FinishReason.SOLUTION_BUDGET)
    assert grade(batch, ["4"], reward) == [1.0]


def test_row_that_answers_without_thinking_is_graded() -> None:
    assert grade(row("answer is 4 <eos>", 0), ["4"], reward) == [1.0]


def test_grading_names_the_row_of_a_reward_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match=r"row 0 .* got nan"):
        grade(row("answer is 4 <eos>", 0), ["4"], lambda response, answer: float("nan"))


class Recorded:
    """An engine that has one batch to give."""

    limits, max_rows = Limits(1000, 99, (), 0), 1

    def __init__(self, batch: RolloutBatch) -> None:
        self.batch, self.tokenizer, self.markers = batch, batch.tokenizer, batch.markers

    def generate(self, prompts: Sequence[str], budget: Budget, *_: object, **__: object) -> RolloutBatch:
        return self.batch


@pytest.mark.parametrize(
    ("text", "thinking", "end", "expected"),
    [
        # markers of their own: the whole text holds no </think> at all
        (r"hm [/THINK] It is \boxed{17} <eos>", 2, "[/THINK]", 1.0),
        (r"\boxed{17} [/THINK] It is \boxed{18} <eos>", 2, "[/THINK]", 0.0),
        # the thought writes </think> as text; what stands behind it is still thought
        (r"</think> \boxed{17} [/THINK] It is \boxed{18} <eos>", 3, "[/THINK]", 0.0),
        (r"</think> \boxed{18} [/THINK] It is \boxed{17} <eos>", 3, "[/THINK]", 1.0),
        # answered at once, without any marker
        (r"It is \boxed{17} <eos>", 0, "</think>", 1.0),
        # the closing "force-answer" opens the box, and belongs to the answer
        (r"hm </think> **Final Answer** \boxed{ 17} <eos>", 2, "</think>", 1.0),
        # a hard cut in the thought: no solution, whatever the thought says
        (r"it is \boxed{17}", 3, "</think>", 0.0),
    ],
)
def test_training_and_evaluation_give_a_row_the_same_grade(
    text: str, thinking: int, end: str, expected: float
) -> None:
    reason = FinishReason.STOP if text.endswith("<eos>") else FinishReason.TOTAL_BUDGET
    batch = row(text, thinking, reason, end)
    assert grade(batch, ["17"], math_reward) == [expected]
    problems = EvalSet("one", [Problem("17?", "17")], math_reward)
    (sample,) = evaluate(Recorded(batch), problems, ["separate"], [(4, 8)])
    assert sample.correct == expected


class Together:
    """A reward that grades all rows at once."""

    def __init__(self, values: list[float | None]) -> None:
        self.values, self.asked = values, []

    def __call__(self, response: str, reference: str) -> float:
        raise AssertionError("asked one by one")

    def grade_many(self, responses: Sequence[str], references: Sequence[str]) -> list[float | None]:
        self.asked += list(zip(responses, references, strict=True))
        return self.values


def test_a_reward_that_grades_batches_gets_all_rows_at_once() -> None:
    text = "so </think> answer is 4 <eos>"
    batch = RolloutBatch.cat([row(text, 2), row(text, 6)])
    together = Together([None, 0.5])
    assert grade(batch, ["4", "5"], together) == [None, 0.5]
    assert together.asked == [("</think> answer is 4", "4"), ("", "5")]


@pytest.mark.parametrize("values", [[], [1.0, 1.0]])
def test_grades_of_a_batch_are_one_for_each_row(values: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"reward: grade_many gave {len(values)} values for 1 responses"):
        grade(row("answer is 4 <eos>", 0), ["4"], Together(values))


def test_a_reward_that_fails_is_asked_for_no_further_row() -> None:
    asked = []

    def failing(response: str, reference: str) -> float:
        asked.append(reference)
        return float("inf")

    batch = RolloutBatch.cat([row("answer is 4", 0), row("answer is 5", 0)])
    with pytest.raises(ValueError, match=r"row 0 .* got inf"):
        grade(batch, ["4", "5"], failing)
    assert asked == ["4"]
