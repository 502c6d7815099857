"""A set of problems as it is put to a model: prompts, and the reward that grades the answers."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from elastic.budget import Budget
from elastic.data import Problem
from elastic.evaluate.methods import METHODS, BudgetPair, Method
from elastic.rewards import RewardFunction
from elastic.rewards.length import Ask, ask_in_words


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Problems under one rule for prompts and one reward.

    Attributes:
        name: in rows and files.
        problems: at least one. Their prompts are complete, or questions where there is a `template`.
        reward: (graded response, `Problem.reference`) to 1.0 or 0.0, or None where it cannot judge; see
            `elastic.rewards.grading.grade`.
        template: makes prompts of questions, such as a chat template.
        suffix: a line behind each question, ``data.suffix`` of a model's training; needs `template`.
        ask: writes L1's request into a complete prompt: of a named set, ``NAMED_SETS[name].ask``. Without it
            L1 needs a `template`: a sentence behind a complete prompt would stand in the model's turn.
        phrases: the set's own words for what budgets force, ``NAMED_SETS[name].phrases``.
        add_special_tokens: of the engine's `generate`.

    Raises:
        ValueError: no problems, ids that are not unique, or a suffix without template.
    """

    name: str
    problems: Sequence[Problem]
    reward: RewardFunction
    template: Callable[[Sequence[str]], Sequence[str]] | None = None
    suffix: str = ""
    ask: Ask | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)
    add_special_tokens: bool | None = None

    def __post_init__(self) -> None:
        if not self.problems:
            raise ValueError(f"data '{self.name}': problems must not be empty")
        if len(set(self.ids)) < len(self.problems):
            raise ValueError(f"data '{self.name}': several problems have the same id")
        if self.suffix and self.template is None:
            raise ValueError(f"suffix: needs questions and a chat template; '{self.name}' stands without one")

    @property
    def ids(self) -> list[str]:
        """The problems' ids; their numbers where they have none."""
        return [problem.id or str(number) for number, problem in enumerate(self.problems)]

    def check(self, method: Method) -> None:
        """Raises ValueError where a method asks for a length and nothing can place the request."""
        if method.length != "none" and self.template is None and self.ask is None:
            raise ValueError(
                f"{method.name}: adds a request for a length to the question, which needs the chat template; "
                f"the prompts of '{self.name}' stand without"
            )

    def spelled(self, budget: Budget) -> Budget:
        """A budget with what it forces in the set's own words."""
        changed: dict[str, Any] = {}
        if isinstance(budget.closing, str):
            changed["closing"] = self.phrases.get(budget.closing, budget.closing)
        if budget.max_extensions and isinstance(budget.extension, str):
            changed["extension"] = self.phrases.get(budget.extension, budget.extension)
        return replace(budget, **changed)

    def prompts(self, method: Method, pair: BudgetPair, numbers: range | None = None) -> list[str]:
        """Prompts of some problems, all by default, as a method puts them under (t, s)."""
        chosen = self.problems if numbers is None else [self.problems[i] for i in numbers]
        ask = ask_in_words if self.ask is None or self.template is not None else self.ask
        texts = [method.question(problem.prompt, *pair, self.suffix, ask) for problem in chosen]
        return texts if self.template is None else list(self.template(texts))

    def facts(self) -> dict[str, Any]:
        """Name, size, and hashes of everything that is put to the model or graded."""
        prompts = self.prompts(METHODS["separate"], (None, None))
        answers = [(problem_id, _plain(p)) for problem_id, p in zip(self.ids, self.problems, strict=True)]
        return {
            "name": self.name,
            "problems": len(self.problems),
            "reward": _name_of(self.reward),
            "add_special_tokens": self.add_special_tokens,
            "prompts_sha256": _digest(prompts),
            "answers_sha256": _digest(answers),
        }


def _plain(problem: Problem) -> str | list[str]:
    return [repr(test) for test in problem.tests] or problem.answer


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
