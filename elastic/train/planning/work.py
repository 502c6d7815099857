"""How many rows and tokens a run generates and trains on, at most.

R rows of a call, K prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from elastic.budget import Budget
from elastic.data import Problem
from elastic.rollout.plan.default_markers import choose_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import make_plan
from elastic.rollout.schedule.needs import Needs
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.evaluation import evaluation_budgets
from elastic.train.collect.prompts import Prompts
from elastic.train.config import TrainConfig
from elastic.train.planning.outline import Outline


class Call(NamedTuple):
    """One call of the engine.

    Attributes:
        needs: of its R rows, of the KV cache.
        most: [R] tokens that each may emit.
    """

    needs: Needs
    most: list[int]


@dataclass(frozen=True)
class Work:
    """Counts of a run. Tokens are those of completions, forced ones included, unless prompts are named.

    Attributes:
        problems: to train on; 0 where they are not at hand.
        longest_prompt: tokens of a training prompt; 0 where prompts are not known.
        mean_prompt: tokens, over all training problems; 0 likewise.
        step_tokens: the most of a step, as a mean over the budgets that the run draws.
        evaluations: how many there are.
        step: the rollouts of a step with the longest prompts and the largest budget.
        evaluation: of each evaluated budget.
    """

    problems: int
    longest_prompt: int
    mean_prompt: float
    step_tokens: float
    evaluations: int
    step: Call
    evaluation: tuple[Call, ...]

    @property
    def rows(self) -> int:
        """Completions of a step."""
        return len(self.step.most)

    @property
    def row_tokens(self) -> int:
        """The most of any row that is trained on."""
        return max(self.step.most)

    @property
    def evaluation_tokens(self) -> int:
        """The most of one evaluation, all its budgets together."""
        return sum(sum(call.most) for call in self.evaluation)


def work_of(
    config: TrainConfig, outline: Outline, training: Sequence[Problem], evaluated: Sequence[Problem]
) -> Work:
    """Counts what a run does. Without problems or tokenizer, prompts and forced texts count as 0 tokens.

    Raises:
        ValueError: prompts, budgets and model do not go together, as in a `Trainer`.
    """
    rollout, budgets = config.rollout, BudgetDraw(config.budget, config.train.seed, training)
    calls = _Calls(config, outline)
    ids = calls.encode(training, Prompts.of_training)
    step = calls.of(ids, budgets.largest, rollout.prompts_per_step, rollout.samples_per_prompt)
    evaluation: list[Call] = []
    if config.eval.every:
        own = calls.encode(evaluated, Prompts.of_evaluation)
        evaluation = [
            calls.of(own, budget, config.eval.count, config.eval.samples)
            for budget in evaluation_budgets(config.eval, budgets.largest).values()
        ]
    return Work(
        problems=len(training),
        longest_prompt=max(map(len, ids), default=0),
        mean_prompt=sum(map(len, ids)) / max(len(ids), 1),
        step_tokens=_drawn_share(config, budgets, training) * sum(step.most)
        + _behind_further_cuts(config) * len(step.most),
        evaluations=_evaluations(config),
        step=step,
        evaluation=tuple(evaluation),
    )


class _Calls:
    """Makes the calls of a run, as the engine would plan them."""

    def __init__(self, config: TrainConfig, outline: Outline) -> None:
        self._config, self._tokenizer, chosen = config, outline.tokenizer, config.model
        text = outline.model.config.get_text_config(decoder=True)
        self._context: int | None = getattr(text, "max_position_embeddings", None)
        if self._tokenizer is not None:
            self._markers = choose_markers(
                self._tokenizer, chosen.start_marker, chosen.end_marker, chosen.ends
            )
            self._limits = model_limits(outline.model, self._tokenizer, self._markers, None, None)

    def encode(
        self, problems: Sequence[Problem], prompts_of: Callable[[Any, TrainConfig], Prompts]
    ) -> list[list[int]]:
        """Token ids of all prompts, longest first; none without problems or tokenizer."""
        if self._tokenizer is None or not problems:
            return []
        prompts = prompts_of(self._tokenizer, self._config)
        texts = prompts.render(problems, prompts.longest(len(problems)))
        return sorted(prompts.encode(texts, self._limits.vocab), key=len, reverse=True)

    def of(self, ids: list[list[int]], budget: Budget, prompts: int, samples: int) -> Call:
        """The call with so many of the longest prompts."""
        limit = None if budget.max_sampled is not None else self._config.rollout.max_new_tokens
        if not ids:
            return self._without_prompts(budget, limit, prompts * samples)
        plan = make_plan(
            *(ids[:prompts], budget, samples, None, limit, None),
            tokenizer=self._tokenizer,
            markers=self._markers,
            limits=self._limits,
        )
        return Call(plan.needs, plan.most)

    def _without_prompts(self, budget: Budget, limit: int | None, rows: int) -> Call:
        known = [n for n in (budget.max_sampled, limit, self._context) if n is not None]
        if not known:
            raise ValueError("rollout.max_new_tokens: neither the budgets nor the model end a row")
        most = [min(known)] * rows
        return Call(Needs.of([0] * rows, most, [budget.max_sampled is not None] * rows), most)


def _drawn_share(config: TrainConfig, budgets: BudgetDraw, problems: Sequence[Problem]) -> float:
    """What the run's budgets allow on average, as a share of the largest."""
    largest = budgets.largest.max_sampled
    if config.budget.draw == "fixed" or not largest:
        return 1.0
    if config.budget.draw == "problem":  # every problem comes equally often
        drawn = budgets.draw(0, range(len(problems)), problems) or [budgets.largest]
    else:
        groups = range(config.rollout.prompts_per_step)
        drawn = [budget for step in range(config.train.steps) for budget in budgets.draw(step, groups)]
    return sum(budget.max_sampled or 0 for budget in drawn) / len(drawn) / largest


def _behind_further_cuts(config: TrainConfig) -> int:
    """Tokens of the solutions behind the cuts of a thought, besides the one that its row has anyway."""
    budget = config.budget
    solutions = len(budget.cuts or ()) * budget.cut_samples - 1
    return solutions * budget.solution if budget.cuts and isinstance(budget.solution, int) else 0


def _evaluations(config: TrainConfig) -> int:
    """At step 0 if `eval.at_start`, every `eval.every` steps, and after the last."""
    steps, every = config.train.steps, config.eval.every
    return config.eval.at_start + -(-steps // every) if every else 0
