"""A demo from its start, or from where it was stopped, to its files and its table."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from elastic.commands.demo.config import METHODS as SHOWN
from elastic.commands.demo.config import PART, DemoConfig, to_json
from elastic.commands.demo.part import say
from elastic.commands.demo.state import DemoState
from elastic.commands.demo.traces import traces
from elastic.commands.demo.verdict import verdict, verdict_text
from elastic.commands.parts.processes import run_parts
from elastic.commands.report import write_report
from elastic.data.files import write_atomic
from elastic.evaluate import EvalSet, Row
from elastic.evaluate.methods import METHODS
from elastic.evaluate.report.figures import accuracy_figure
from elastic.evaluate.report.table import table
from elastic.evaluate.run.problems import write_problems
from elastic.models import tiny
from elastic.models.quiet import quiet_transformers
from elastic.models.threads import available_cores
from elastic.rollout import RolloutEngine

LABELS = {name: METHODS[name].label for name in SHOWN}
REPORT = "report.html"
_ORDER = ("e1", "capped", "separate", "vanilla")  # the long parts first


def run(config: DemoConfig, out: Path, *, processes: int | None = None) -> dict[str, Any]:
    """Runs a demo, or what is left of one, and prints its table.

    Args:
        config: the settings.
        out: directory for `demo.json`, `demo.png`, `traces.txt`, `report.html`, the answers to some of the
            problems in `samples/`, and the training runs `e1/` and `capped/`; created.
        processes: methods that run at the same time, each with one thread; None for two, or one on a single
            core. One runs in this process.

    Returns:
        What `demo.json` holds: the keys of the public interface, and `resumed` (then `wall_seconds` is the
        time of the last call alone), `settings` and `verdict`. All but `wall_seconds` and `resumed` follow
        from the settings, up to torch's rounding, which differs between instruction sets.

    Raises:
        ValueError: `out` holds a demo with other settings, or `processes` is below 1.
        OSError: `out` is not writable.
        RuntimeError: a process ended early.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"demo: processes must be at least 1, got {processes}")
    started = time.monotonic()
    settings = config.settings()
    state = DemoState(out, settings)
    if state.result is not None:
        say(f"finished before in {state.result['wall_seconds']:.0f} s; remove {out} to run it again")
        return _show(state.result, out)
    if state.resumed:
        done = sum(len(state.rows(name)) for name in SHOWN)
        say(f"going on with the demo in {out}: {done} rows are done")
    rollouts = f"{config.prompts_per_step} x {config.samples_per_prompt} rollouts"
    say(f"1/2 two trainings of {config.steps} steps, {rollouts} each:")
    say(f"    e1 under t* = {config.thinking}, s* = {config.solution}")
    say(f"    capped, the control, under one cap of {config.thinking + config.solution}")
    say(f"    and every method on {config.problems} {config.split} problems per budget")
    run_parts(_ORDER, PART, out, to_json(config), processes or min(2, available_cores()))

    say("2/2 traces and figure")
    rows = _in_order(state, config)
    write_atomic(out / "traces.txt", traces(_engines(config, out), config))
    accuracy_figure(
        rows,
        out / "demo.png",
        title=_title(settings),
        labels=LABELS,
    )
    result = {
        "seed": config.seed,
        "wall_seconds": round(time.monotonic() - started, 1),
        "resumed": state.resumed,
        "versions": settings["versions"],
        "settings": settings,
        "rows": [row.to_dict() for row in rows],
        "verdict": verdict(rows).to_dict(),
    }
    write_problems(out, [EvalSet(tiny.NAME, config.traced_problems(), tiny.reward)])
    state.finish(result)
    say(f"done in {result['wall_seconds']:.0f} s; results in {out}")
    return _show(result, out)


def _in_order(state: DemoState, config: DemoConfig) -> list[Row]:
    """All rows, budget by budget, whichever method was done first."""
    parts = [state.rows(name) for name in SHOWN]
    return [rows[index] for index in range(len(config.limits)) for rows in parts]


def _engines(config: DemoConfig, out: Path) -> dict[str, RolloutEngine]:
    with quiet_transformers():
        base, tokenizer = tiny.load()
        models = {"untrained": base}
        for heading, method in (("control, one cap", "capped"), ("E1", "e1")):
            models[heading] = AutoModelForCausalLM.from_pretrained(out / method / "final").eval()
    return {
        heading: RolloutEngine(model, tokenizer, max_rows=config.max_rows)
        for heading, model in models.items()
    }


def _show(result: dict[str, Any], out: Path) -> dict[str, Any]:
    rows = [Row(**row) for row in result["rows"]]
    print(table(rows))
    print(verdict_text(verdict(rows), LABELS))
    write_report([out], out / REPORT, title=_title(result["settings"]))
    say(f"the report, for a browser: {out / REPORT}")
    return result


def _title(settings: Mapping[str, Any]) -> str:
    return f"Embedded model: E1 trained under t* = {settings['thinking']}, s* = {settings['solution']} alone"
