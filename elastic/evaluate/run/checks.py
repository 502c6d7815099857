"""What is checked before the first token of an evaluation is drawn."""

from collections.abc import Sequence

from elastic.evaluate.engines import Engine
from elastic.evaluate.methods import BudgetPair, Method, PolicyOptions, check_options
from elastic.evaluate.run.answer import limit_of, longest_thought
from elastic.evaluate.run.plan import Task
from elastic.evaluate.run.sets import EvalSet
from elastic.rollout import RolloutEngine
from elastic.rollout.plan.encoding import encode_prompts
from elastic.rollout.plan.plan import make_plan


def check_request(
    sets: Sequence[EvalSet],
    methods: Sequence[Method],
    pairs: Sequence[BudgetPair],
    options: PolicyOptions,
    numbers: dict[str, int],
    ks: Sequence[int],
) -> None:
    """Checks that need no model; budgets and options are checked where the tasks are made.

    Args:
        sets: what is put to the model.
        methods: policies.
        pairs: budgets.
        options: of the policies.
        numbers: counts by name, each at least 1; with `samples`.
        ks: of pass@k.

    Raises:
        ValueError: naming the argument, its value and the limit.
    """
    for name, values in (
        ("data", [s.name for s in sets]),
        ("methods", [m.name for m in methods]),
        ("budgets", pairs),
    ):
        if not values:
            raise ValueError(f"{name}: expected at least one, got none")
        double = [value for place, value in enumerate(values) if value in values[:place]]
        if double:
            raise ValueError(f"{name}: {double[0]} is there twice")
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: expected 1 or more, got {number}")
    wrong = [k for k in ks if not 1 <= k <= numbers["samples"]]
    if wrong:
        raise ValueError(f"ks: expected 1 .. samples={numbers['samples']}, got {wrong[0]}")
    check_options(methods, options)
    for data in sets:
        for method in methods:
            data.check(method)


def check_tasks(engine: Engine, tasks: Sequence[Task], max_new_tokens: int | None) -> None:
    """Checks every prompt and budget of every task against the model.

    Raises:
        ValueError: naming set and method; a budget that is illegal for these markers, a prompt that does not
            fit the context with its budget, an engine that cannot run the method, or a `max_new_tokens` that
            no completion needs.
    """
    unbounded = False
    encoded: dict[tuple, list[list[int]]] = {}  # most tasks of a set have the same prompts
    for task in tasks:
        method = task.cells[0].method
        if method.one_thought and not isinstance(engine, RolloutEngine):
            raise ValueError(
                f"engine: {method.name} cuts one thought several times, which needs the own engine"
            )
        budgets = [*task.budgets, longest_thought(task.budgets)] if method.one_thought else task.budgets
        texts, special = task.prompts(), task.data.add_special_tokens
        key = (*texts, special)
        if key not in encoded:
            encoded[key] = encode_prompts(texts, engine.tokenizer, engine.limits.vocab, special)
        for budget in budgets:
            limit = limit_of(budget, max_new_tokens)
            unbounded |= budget.max_sampled is None
            try:
                make_plan(
                    *(encoded[key], budget, 1, None, limit, None),
                    tokenizer=engine.tokenizer,
                    markers=engine.markers,
                    limits=engine.limits,
                )
            except ValueError as error:
                raise ValueError(f"{task.name}: {error}") from error
    if max_new_tokens is not None and not unbounded:
        raise ValueError("max_new_tokens: has no effect: the budgets end every completion")
