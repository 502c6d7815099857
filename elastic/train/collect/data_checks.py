"""Checks of the problems before a run starts: what is refused, and what is warned of."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from elastic.budget import Budget, Phase
from elastic.budget.markers import Markers
from elastic.data import NAMED_SETS, Problem, contamination
from elastic.data.overlap import NEARLY_ALL
from elastic.rollout import OutOfContext
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.engines import Engine
from elastic.train.collect.evaluation import evaluation_budgets
from elastic.train.collect.prompts import Prompts
from elastic.train.config import TrainConfig
from elastic.train.config.reward import RewardConfig

Source = tuple[Sequence[Problem], Prompts]


def check_data(
    config: TrainConfig,
    engine: Engine,
    budgets: BudgetDraw,
    training: Source,
    evaluation: tuple[Sequence[Problem], Prompts | None],
    *,
    say: bool = True,
) -> None:
    """Checks, before the first step, that every prompt with its budgets fits the context.

    Warns once each of: evaluated problems that are trained on; ids that name several problems; prompts that
    open thinking twice, or never where thinking has a budget; lengths that no row can have.

    Args:
        config: of the run.
        engine: knows context, tokenizer and markers.
        budgets: of the training.
        training: training problems, and what renders them.
        evaluation: likewise for the evaluations, if there are any.
        say: whether to warn; true in one process.

    Raises:
        OutOfContext: names the problem.
        ValueError: a text of the budgets does not work with the markers.
    """
    _check_problems("data", *training, engine, [budgets.largest], say)
    problems, prompts = evaluation
    evaluated: list[Budget] = []
    if prompts is not None:
        evaluated = list(evaluation_budgets(config.eval, budgets.final).values())
        _check_problems("eval", problems, prompts, engine, evaluated, say)
        if say:
            _say_overlap(training[0], problems, generated=config.data.source in NAMED_SETS)
    if say:
        _say_lengths(config.reward, budgets.smallest, evaluated)


def _check_problems(
    table: str,
    problems: Sequence[Problem],
    prompts: Prompts,
    engine: Engine,
    budgets: Sequence[Budget],
    say: bool,
) -> None:
    if not problems:
        return  # refused elsewhere
    ids = prompts.encode(prompts.render(problems, prompts.longest(len(problems))), engine.limits.vocab)
    phases = [engine.markers.initial_phase(tokens) for tokens in ids]
    _check_context(problems, ids, phases, engine, budgets)
    if not say:
        return
    _say_shared_ids(table, problems)
    twice = [p for p, tokens in zip(problems, ids, strict=True) if _opens_twice(tokens, engine.markers)]
    if twice:
        _say(
            f"{table}: {_share(twice, problems)} open thinking twice: the prompts of this source are "
            f'complete, and the chat template completes them again; set {table}.chat = "off"'
        )
    if any(budget.thinking is not None for budget in budgets):
        _say_unopened(table, problems, ids, phases, engine.markers)


def _check_context(
    problems: Sequence[Problem],
    ids: Sequence[Sequence[int]],
    phases: Sequence[Phase],
    engine: Engine,
    budgets: Sequence[Budget],
) -> None:
    for budget in budgets:  # first, so that a text at odds with the markers is not reported as OutOfContext
        budget.max_tokens(engine.markers, engine.tokenizer)
    context = engine.limits.context
    if context is None:
        return
    # The longest prompt of a phase stands for all of them.
    for phase in sorted(set(phases)):
        rows = [row for row, own in enumerate(phases) if own == phase]
        longest = max(rows, key=lambda row: len(ids[row]))
        for budget in budgets:
            budget.max_tokens(engine.markers, engine.tokenizer)  # raises for a bad text by itself
            try:
                budget.check_context(
                    context, len(ids[longest]), engine.markers, engine.tokenizer, phase=phase
                )
            except ValueError as error:
                raise OutOfContext(f"problem '{problems[longest].id}': {error}") from error


def _say_shared_ids(table: str, problems: Sequence[Problem]) -> None:
    counts = Counter(problem.id for problem in problems if problem.id)
    shared = [name for name, count in counts.items() if count > 1]
    if shared:
        _say(
            f"{table}: {len(shared)} ids name more than one problem (first: '{shared[0]}', "
            f"{counts[shared[0]]} problems): samples and messages cannot tell those apart"
        )


def _say_unopened(
    table: str,
    problems: Sequence[Problem],
    ids: Sequence[Sequence[int]],
    phases: Sequence[Phase],
    markers: Markers,
) -> None:
    reasons: dict[Phase | None, str] = {
        None: "hold a start marker with text behind it: they are taken as not thinking yet, and unless the "
        "model writes the marker once more, the thinking budget does nothing. End the prompts with it",
        Phase.OPENING: "do not open thinking: unless the model writes the start marker first, everything is "
        "solution, and the thinking budget does nothing. End the prompts with the marker if it is to think",
        Phase.SOLUTION: "close thinking themselves: everything is solution, and the thinking budget does "
        "nothing. Switch thinking on in the template, or leave out the end marker",
    }
    kinds = [
        None if phase == Phase.OPENING and markers.opened_before(tokens) else phase
        for tokens, phase in zip(ids, phases, strict=True)
    ]
    for kind, reason in reasons.items():
        found = [problem for problem, own in zip(problems, kinds, strict=True) if own == kind]
        if found:
            _say(f"{table}: {_share(found, problems)} {reason}")


def _say_overlap(problems: Sequence[Problem], evaluated: Sequence[Problem], *, generated: bool) -> None:
    """Warns of problems that are both trained on and evaluated, by comparing questions, not ids.

    Different questions of a generated set share most of their words, so there the whole question counts.
    """
    numbered = [replace(problem, id=str(number)) for number, problem in enumerate(evaluated)]
    same = contamination(problems, numbered, min_share=1.0 if generated else NEARLY_ALL)
    found = [evaluated[int(overlap.evaluation)] for overlap in same]
    if found:
        _say(
            f"eval: {_share(found, evaluated)} are trained on too: accuracy on them shows what the model has "
            "seen, not what it has learned. Evaluate on other problems"
        )


def _say_lengths(reward: RewardConfig, drawn: Budget, evaluated: Sequence[Budget]) -> None:
    """Warns of lengths beyond some budgets; the configuration refuses those beyond the largest."""
    if reward.length == "none":
        return
    found = [("budget.draw draws", drawn), *(("eval.budgets has", budget) for budget in evaluated)]
    short = [(name, b.max_sampled) for name, b in found if b.max_sampled is not None]
    short = [(name, most) for name, most in short if most is not None and most < reward.target_max]
    if short:
        name, most = short[0]
        _say(
            f"reward.target_max: prompts ask for up to {reward.target_max} tokens, but {name} budgets of "
            f"{most} tokens for both phases: such a row cannot have the length it was asked for"
        )


def _opens_twice(tokens: Sequence[int], markers: Markers) -> bool:
    """Whether a prompt ends in two start markers, with white space at most between them."""
    if markers.initial_phase(tokens) != Phase.THINKING:
        return False
    rest = list(tokens)
    while not (marker := markers.start_pattern.tail(rest)):
        rest.pop()
    return markers.initial_phase(rest[:-marker]) == Phase.THINKING


def _question(problem: Problem) -> str:
    return " ".join(problem.prompt.split())


def _share(found: Sequence[Problem], problems: Sequence[Problem]) -> str:
    name = found[0].id or _question(found[0])[:60]
    return f"{len(found)} of {len(problems)} problems (first: '{name}')"


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=4)
