"""The four parts of a demo, in order."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic import tiny
from elastic.data import Problem, load_problems
from elastic.demo.config import DemoConfig
from elastic.demo.state import DemoState
from elastic.demo.traces import traces
from elastic.evaluate import Row, sweep, verdict
from elastic.files import write_atomic
from elastic.methods import METHODS
from elastic.report.figures import accuracy_figure
from elastic.report.table import table, verdict_text
from elastic.rollout import RolloutEngine
from elastic.sampling import Sampling
from elastic.threads import threads_for
from elastic.train import Trainer
from elastic.train.quiet import quiet_transformers

BEFORE, AFTER = ("vanilla", "separate"), ("e1",)
TRAINING = "e1"  # the trainer's directory


def run(config: DemoConfig, out: Path) -> dict[str, Any]:
    """Runs a demo, or what is left of one, and prints its table.

    Args:
        config: the settings.
        out: directory for `demo.json`, `demo.png`, `traces.txt` and the training run `e1/`; created.

    Returns:
        What `demo.json` holds: the keys of the public interface, and `resumed` (then `wall_seconds` is the
        time of the last call alone), `settings` and `verdict`. All but `wall_seconds` is a function of the
        settings, as far as torch's rounding is (it differs between instruction sets and thread counts).

    Raises:
        ValueError: `out` holds a demo with other settings.
        OSError: `out` is not writable.
    """
    started = time.monotonic()
    settings = config.settings()
    state = DemoState(out, settings)
    if state.result is not None:
        _say(f"finished before in {state.result['wall_seconds']:.0f} s; remove {out} to run it again")
        return _show(state.result)
    if state.resumed:
        _say(f"going on with the demo in {out}: {len(state.rows)} rows are done")
    problems = tiny.problems(config.problems, config.seed, "test")
    with quiet_transformers():
        base, tokenizer = tiny.load()
        trained, _ = tiny.load()

    _say(f"1/4 the untrained model, {config.problems} problems a budget")
    before = RolloutEngine(base, tokenizer, max_rows=config.max_rows)
    _evaluate(before, BEFORE, config, problems, state)

    rollouts = f"{config.prompts_per_step} x {config.samples_per_prompt} rollouts"
    _say(f"2/4 E1: {config.steps} steps of {rollouts}, t* = {config.thinking}, s* = {config.solution}")
    training = config.training(out / TRAINING)
    dataset = load_problems(training.data.source, count=training.data.count, seed=training.data.seed)
    Trainer(training, trained, tokenizer, dataset, tiny.reward).train()

    _say(f"3/4 the trained model, {config.problems} problems a budget")
    after = RolloutEngine(trained, tokenizer, max_rows=config.max_rows)
    _evaluate(after, AFTER, config, problems, state)

    _say("4/4 traces and figure")
    write_atomic(out / "traces.txt", traces(before, after, config, problems))
    accuracy_figure(
        state.rows,
        out / "demo.png",
        title=f"Embedded model: E1 trained under t* = {config.thinking}, s* = {config.solution} alone",
        labels={name: METHODS[name].label for name in (*BEFORE, *AFTER)},
    )
    state.finish(
        {
            "seed": config.seed,
            "wall_seconds": round(time.monotonic() - started, 1),
            "resumed": state.resumed,
            "versions": settings["versions"],
            "settings": settings,
            "rows": [row.to_dict() for row in state.rows],
            "verdict": verdict(state.rows, config.thinking).to_dict(),
        }
    )
    assert state.result is not None
    _say(f"done in {state.result['wall_seconds']:.0f} s; results in {out}")
    return _show(state.result)


def _say(line: str) -> None:
    print(f"elastic demo: {line}", file=sys.stderr, flush=True)


def _evaluate(
    engine: RolloutEngine,
    methods: Sequence[str],
    config: DemoConfig,
    problems: Sequence[Problem],
    state: DemoState,
) -> None:
    """Adds the rows that are still missing, budget by budget."""
    sampling = Sampling(temperature=config.temperature, seed=config.seed)
    done = {(row.method, row.allowance) for row in state.rows}
    for thinking, solution in config.limits:
        allowance = math.inf if thinking is None or solution is None else thinking + solution
        missing = [name for name in methods if (name, allowance) not in done]
        if not missing:
            continue
        started = time.monotonic()
        new: list[Row] = []
        with threads_for(engine.model, min(config.max_rows, len(problems))):
            for row in sweep(
                engine, missing, [(thinking, solution)], problems, tiny.reward, sampling=sampling
            ):
                state.add(row)
                new.append(row)
        budget = "no budget" if thinking is None else f"t = {thinking}, s = {solution}"
        shares = ", ".join(f"{row.method} {row.accuracy:.1%}" for row in new)
        _say(f"    {budget}: {shares} right ({time.monotonic() - started:.1f} s)")


def _show(result: dict[str, Any]) -> dict[str, Any]:
    rows = [Row(**row) for row in result["rows"]]
    print(table(rows))
    print(verdict_text(verdict(rows, result["settings"]["thinking"])))
    return result
