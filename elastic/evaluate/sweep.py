"""Methods x budgets over one list of problems, one row each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from elastic.budget import Budget, FinishReason
from elastic.data import Problem
from elastic.evaluate.methods import Method, get_method
from elastic.evaluate.row import Row
from elastic.evaluate.sample import Sample
from elastic.evaluate.summary import rows_of
from elastic.rewards import RewardFunction
from elastic.rewards.grading import grade
from elastic.rewards.length import Ask, ask_in_words
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure
from elastic.sampling import Sampling

BudgetPair = tuple[int | None, int | None]
Facts = dict[str, Any]  # of a `Sample`: what the budget's name does not change


class Engine(Protocol):
    """What a sweep needs of a `RolloutEngine`."""

    def generate(self, prompts: Sequence[str], budget: Budget, *, sampling: Sampling) -> RolloutBatch:
        """One completion per prompt."""


def sweep(
    engine: Engine,
    methods: Sequence[str],
    limits: Sequence[BudgetPair],
    problems: Sequence[Problem],
    reward: RewardFunction,
    *,
    sampling: Sampling,
    template: Callable[[str], str] | None = None,
    suffix: str = "",
    ask: Ask | None = None,
) -> Iterator[Row]:
    """Evaluates every method at every (t, s), one sampled answer per problem; yields rows as they are done.

    Everything is checked before the first token is drawn. Problem i has the same seed in every row, so rows
    differ by method and budget, not by chance. Methods with the same prompts and the same budget (without
    limits, all of them) are decoded once.

    Args:
        engine: holds the model; all methods run on it.
        methods: names in `elastic.evaluate.methods.METHODS`.
        limits: (t, s) pairs, in sampled tokens; (None, None) for no limit.
        problems: at least one. Their prompts are complete, or questions where `template` is given.
        reward: (graded response, right answer) to 1.0 or 0.0; see `elastic.rewards.grading.grade`.
        sampling: how tokens are drawn. A seed of None draws one, and all rows share it.
        template: makes a prompt of a question. Methods that ask for a length (L1) need it, or `ask`: a
            sentence behind a complete prompt would stand in the model's turn.
        suffix: a line behind each question, ``data.suffix`` of a model's training; needs `template` too.
        ask: writes L1's request into a complete prompt: of a named set, ``NAMED_SETS[name].ask``.

    Raises:
        ValueError: unknown method, bad budget, no problems, no `template` where one is needed, or a reward
            other than 0 and 1.
    """
    chosen = [get_method(name) for name in methods]
    if not problems:
        raise ValueError("sweep: problems must not be empty")
    adding = ["suffix"] if suffix else [m.name for m in chosen if m.length != "none" and ask is None]
    if adding and template is None:
        raise ValueError(f"sweep: {adding[0]} adds to the question, so it needs questions and their template")
    plan = [(method, pair, method.budget(*pair)) for pair in limits for method in chosen]
    return _rows(engine, plan, problems, reward, sampling.seeded(), template, suffix, ask or ask_in_words)


def _rows(
    engine: Engine,
    plan: Sequence[tuple[Method, BudgetPair, Budget]],
    problems: Sequence[Problem],
    reward: RewardFunction,
    sampling: Sampling,
    template: Callable[[str], str] | None,
    suffix: str,
    ask: Ask,
) -> Iterator[Row]:
    last: tuple[Any, list[Facts]] | None = None
    for method, pair, budget in plan:
        prompts = [method.question(problem.prompt, *pair, suffix, ask) for problem in problems]
        if template is not None:
            prompts = [template(prompt) for prompt in prompts]
        key = (budget, prompts)
        if last is None or last[0] != key:
            batch = engine.generate(prompts, budget, sampling=sampling)
            last = (key, _answers(batch, problems, reward))
        yield _row(method, pair, problems[0].source, last[1])


def _answers(batch: RolloutBatch, problems: Sequence[Problem], reward: RewardFunction) -> list[Facts]:
    """What samples say about a batch that holds one completion per problem, in the problems' order."""
    grades = grade(batch, [problem.answer for problem in problems], reward)
    rows = measure(batch)
    answers = []
    for index, (value, problem) in enumerate(zip(grades, problems, strict=True)):
        if value is None or value not in (0, 1):
            raise ValueError(
                f"sweep: reward must be 0 or 1 to have an interval, got {value} for '{problem.id}'"
            )
        answers.append(
            {
                "problem": problem.id or str(index),
                "correct": value,
                "tokens": int(rows.tokens[index]),
                "thinking_tokens": int(rows.thinking_tokens[index]),
                "solution_tokens": int(rows.solution_tokens[index]),
                "cut": bool(rows.thinking_cut[index]),
                "answered": bool(rows.answered[index]),
                "finish_reason": FinishReason(int(batch.finish_reason[index])).text,
            }
        )
    return answers


def _row(method: Method, pair: BudgetPair, data: str, answers: Sequence[Facts]) -> Row:
    thinking, solution = pair
    total: int | None = None
    if method.one_cap and thinking is not None and solution is not None:
        total = thinking + solution
        thinking = solution = None
    limits: Facts = {"thinking": thinking, "solution": solution, "total": total}
    (row,) = rows_of(Sample(data=data, method=method.name, sample=0, **limits, **facts) for facts in answers)
    return row
