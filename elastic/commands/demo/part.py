"""One method's share of a demo: its training, if it has one, and its rows.

The methods share nothing but the problems, so they may run in any order, and in processes of their own.
"""

import math
import sys
import time
from pathlib import Path

from elastic.commands.demo.config import TRAINED, from_json
from elastic.commands.demo.state import DemoState
from elastic.commands.parts.samples import keep_samples, samples_path
from elastic.commands.parts.training import train
from elastic.evaluate import EvalSet, evaluate, rows_of
from elastic.evaluate.report.table import budget_label
from elastic.models import tiny
from elastic.models.quiet import quiet_transformers
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling


def run_part(method: str, out: Path, settings: str) -> None:
    """Adds the rows of a method that are still missing, after its training or what is left of it.

    Args:
        method: one of `elastic.commands.demo.config.METHODS`.
        out: the demo's directory; the training keeps its run in `out/METHOD`.
        settings: a `DemoConfig` as JSON.
    """
    config = from_json(settings)
    state = DemoState(out, config.settings())
    done = {row.allowance for row in state.rows(method)}
    missing = [pair for pair in config.limits if _allowance(*pair) not in done]
    if not missing:
        return
    problems = EvalSet(tiny.NAME, config.test_problems(), tiny.reward)
    with quiet_transformers():
        model, tokenizer = tiny.load()
    if method in TRAINED:
        training = config.training(method, out / method)
        train(training, model, tokenizer, tiny.reward, f"elastic demo: {method}")
    traced = {problem.id for problem in config.traced_problems()}
    engine = RolloutEngine(model, tokenizer, max_rows=config.max_rows)
    sampling = Sampling(temperature=config.temperature, seed=config.test_seed)
    for pair in missing:
        started = time.monotonic()
        samples = evaluate(
            *(engine, problems, [method], [pair]),
            sampling=sampling,
            chunk_rows=config.problems,
            progress=False,
        )
        keep_samples(samples_path(out, method), [item for item in samples if item.problem in traced])
        (row,) = rows_of(samples)
        state.add(row)
        seconds = time.monotonic() - started
        cut = "" if row.accuracy_cut is None else f", {row.accuracy_cut:.1%} of the cut thoughts"
        say(f"{method}: budget {budget_label(row)}: {row.accuracy:.1%} right{cut} ({seconds:.1f} s)")


def say(line: str) -> None:
    """A line on stderr."""
    print(f"elastic demo: {line}", file=sys.stderr, flush=True)


def _allowance(thinking: int | None, solution: int | None) -> float:
    return math.inf if thinking is None or solution is None else thinking + solution
