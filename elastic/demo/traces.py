"""Three problems before and after training."""

from collections.abc import Sequence

from elastic import tiny
from elastic.budget import Budget
from elastic.data import Problem
from elastic.demo.config import DemoConfig
from elastic.report.traces import Pair, completion, traces_text
from elastic.rewards.grading import grade
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling
from elastic.threads import threads_for

_CANDIDATES = 24  # problems a trace is picked from
_INTRODUCTION = (
    "Three test problems before and after training. Under a budget: the first problem, not shown already, "
    "that exactly one of the two models gets right, whichever it is; without a budget: the first one left."
)


def traces(
    before: RolloutEngine, after: RolloutEngine, config: DemoConfig, problems: Sequence[Problem]
) -> str:
    """One problem under half t*, one under t*, one without budgets, as text.

    Args:
        before: engine of the untrained model.
        after: engine of the trained model.
        config: budgets, temperature and seed.
        problems: of the evaluation; the first ones are candidates.
    """
    few = problems[:_CANDIDATES]
    prompts = [problem.prompt for problem in few]
    sampling = Sampling(temperature=config.temperature, seed=config.seed)
    pairs: list[Pair] = []
    taken: set[int] = set()
    for thinking in (config.thinking // 2, config.thinking, None):
        budget = Budget.unlimited() if thinking is None else Budget(thinking, config.solution)
        with threads_for(before.model, len(few)):
            batches = [engine.generate(prompts, budget, sampling=sampling) for engine in (before, after)]
        right = [grade(batch, [problem.answer for problem in few], tiny.reward) for batch in batches]
        left = [index for index in range(len(few)) if index not in taken] or [0]
        differing = [index for index in left if right[0][index] != right[1][index]]
        index = left[0] if thinking is None or not differing else differing[0]
        taken.add(index)
        problem = few[index]
        completions = tuple(
            completion(batch, index, before.tokenizer.decode, heading=heading, correct=correct[index] == 1.0)
            for batch, correct, heading in zip(
                batches, right, ("before, untrained", "after, E1"), strict=True
            )
        )
        limit = "no budget" if thinking is None else f"t = {thinking}, s = {config.solution}"
        pairs.append(Pair(f"test problem {index + 1}, {limit}", problem.prompt, problem.answer, completions))
    return traces_text(pairs, _INTRODUCTION)
