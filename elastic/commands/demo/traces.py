"""Three problems before and after the trainings."""

from collections.abc import Mapping

from elastic.budget import Budget
from elastic.commands.demo.config import DemoConfig
from elastic.evaluate.report.traces import Example, completion, traces_text
from elastic.models.threads import threads_for
from elastic.models.tiny import reward
from elastic.rewards.grading import grade
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling

_CANDIDATES = 24  # problems a trace is picked from
_INTRODUCTION = (
    "Three problems, answered by the untrained model, by the control (GRPO under one hard cap) and by E1. "
    "Under a budget: the first problem, not shown already, that some get right and some wrong, whoever they "
    "are; without a budget: the first one left."
)


def traces(engines: Mapping[str, RolloutEngine], config: DemoConfig) -> str:
    """One problem under half t*, one under t*, one without budgets, as text.

    Args:
        engines: one per model, by the name to show, in the order to show them.
        config: problems, budgets, temperature and seed; the evaluation's first problems are candidates.
    """
    few = config.test_problems()[:_CANDIDATES]
    prompts, answers = [problem.prompt for problem in few], [problem.answer for problem in few]
    sampling = Sampling(temperature=config.temperature, seed=config.test_seed)
    examples: list[Example] = []
    taken: set[int] = set()
    for thinking in (config.thinking // 2, config.thinking, None):
        budget = Budget.unlimited() if thinking is None else Budget(thinking, config.solution)
        batches = {}
        for heading, engine in engines.items():
            with threads_for(engine.model, len(few)):
                batches[heading] = engine.generate(prompts, budget, sampling=sampling)
        right = {heading: grade(batch, answers, reward) for heading, batch in batches.items()}
        left = [index for index in range(len(few)) if index not in taken] or [0]
        differing = [index for index in left if len({values[index] for values in right.values()}) > 1]
        index = left[0] if thinking is None or not differing else differing[0]
        taken.add(index)
        completions = tuple(
            completion(
                batch,
                index,
                engines[heading].tokenizer.decode,
                heading=heading,
                correct=right[heading][index] == 1.0,
            )
            for heading, batch in batches.items()
        )
        limit = "no budget" if thinking is None else f"t = {thinking}, s = {config.solution}"
        title = f"{config.split} problem {index + 1}, {limit}"
        examples.append(Example(title, few[index].prompt, few[index].answer, completions))
    return traces_text(examples, _INTRODUCTION)
