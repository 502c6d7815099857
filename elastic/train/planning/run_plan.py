"""The plan of a run: what it does, what that takes of memory and time, what is wrong with its settings."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elastic.data import Problem
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.datasets import load_datasets
from elastic.train.collect.evaluation import metric_names
from elastic.train.config import TrainConfig
from elastic.train.config.no_effect import without_effect
from elastic.train.planning.disk import Disk, disk_of
from elastic.train.planning.memory import Memory, memory_of
from elastic.train.planning.outline import Outline
from elastic.train.planning.rates import Rates
from elastic.train.planning.work import Work, work_of
from elastic.train.run.best import check_best
from elastic.train.run.metrics import METRICS_FILE
from elastic.train.run.output import check_output


@dataclass(frozen=True)
class Hours:
    """How long a run takes at measured rates.

    Attributes:
        most: with every row at its most tokens.
        expected: with rows as long as those of the run that was measured; None unless that run had the same
            model and budgets.
    """

    most: float
    expected: float | None


@dataclass(frozen=True)
class RunPlan:
    """See the module.

    Attributes:
        config: with its defaults resolved.
        device: where it would run here.
        architecture: class of the model.
        parameters: of the model.
        work: counts.
        memory: bytes.
        disk: bytes.
        rates: of an earlier run; None where none were given and the output directory has none.
        hours: at these rates; None without.
        problems: what has to be put right before the run starts.
        notes: what is not counted, and settings that have no effect.
    """

    config: TrainConfig
    device: str
    architecture: str
    parameters: int
    work: Work
    memory: Memory
    disk: Disk
    rates: Rates | None
    hours: Hours | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """All numbers, with the configuration as its tables."""
        memory, work = self.memory, self.work
        totals = {name: getattr(memory, name) for name in ("held", "rollouts", "updates", "most")}
        rates = self.rates and {name: value for name, value in vars(self.rates).items() if name != "config"}
        plain: dict[str, Any] = {
            "config": self.config.to_dict(),
            "device": self.device,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "work": {
                "problems": work.problems,
                "longest_prompt": work.longest_prompt,
                "mean_prompt": work.mean_prompt,
                "rows": work.rows,
                "row_tokens": work.row_tokens,
                "step_tokens": work.step_tokens,
                "run_tokens": work.step_tokens * self.config.train.steps,
                "evaluations": work.evaluations,
                "evaluation_tokens": work.evaluation_tokens,
            },
            "memory_bytes": asdict(memory) | totals,
            "disk": asdict(self.disk) | {"most": self.disk.most},
            "rates": rates,
            "hours": self.hours and asdict(self.hours),
            "problems": self.problems,
            "notes": self.notes,
        }
        return json.dumps(plain, indent=2, ensure_ascii=False)


def plan_run(config: TrainConfig, rates: str | Path | None = None) -> RunPlan:
    """Plans a run without reading weights.

    What would stop the run from starting is collected in `RunPlan.problems`, as far as a plan can be made.

    Args:
        config: of the run.
        rates: ``metrics.jsonl`` of an earlier run, or its directory; None takes that of ``train.output_dir``,
            if it has one.

    Raises:
        ValueError, FileNotFoundError: no configuration of the model, bad rates, or settings that cannot be
            planned with.
    """
    measured = _rates(config, rates)
    problems = _Problems()
    problems.of(config.preflight)
    datasets: tuple[list[Problem], list[Problem]] | None = problems.of(load_datasets, config)
    training, evaluated = datasets or ([], [])
    if training:
        config = problems.of(config.for_problems, len(training), len(evaluated) or None) or config
    problems.of(check_output, config)
    if config.eval.every:
        final = BudgetDraw(config.budget, config.train.seed).final
        problems.of(check_best, config, metric_names(config.eval, final))
    outline = Outline(config)
    work = work_of(config, outline, training, evaluated)
    memory = memory_of(config, outline, work)
    return RunPlan(
        config=config,
        device=str(outline.device),
        architecture=type(outline.model).__name__,
        parameters=outline.parameters,
        work=work,
        memory=memory,
        disk=disk_of(config, memory, outline.has_adapter),
        rates=measured,
        hours=None if measured is None else _hours(config, work, measured),
        problems=problems.texts,
        notes=_notes(config, outline, work, memory, measured),
    )


class _Problems:
    """What checks raised, in words."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()

    def of(self, check: Any, *arguments: Any) -> Any:
        """The check's result, or None where it raised."""
        try:
            return check(*arguments)
        except (ValueError, OSError, ImportError) as error:
            if str(error) not in " ".join(self.texts):
                self.texts += (str(error),)
            return None


def _rates(config: TrainConfig, given: str | Path | None) -> Rates | None:
    own = Path(config.train.output_dir) / METRICS_FILE
    if given is None and not own.is_file():
        return None
    return Rates.read(own if given is None else given)


def _hours(config: TrainConfig, work: Work, rates: Rates) -> Hours:
    trained = work.step_tokens * config.train.steps
    evaluated = work.evaluations * work.evaluation_tokens
    rollout = config.rollout
    replaced = trained * (rollout.max_batches - 1) if rollout.dynamic_sampling else 0
    most = rates.seconds(trained, evaluated + replaced) / 3600
    if rates.config is None or _what_decides_lengths(rates.config) != _what_decides_lengths(config):
        return Hours(most, None)
    # Evaluations may have other budgets than those whose rows were measured: they stay at their most.
    tokens = min(trained, work.rows * config.train.steps * rates.completion_tokens)
    return Hours(most, rates.seconds(tokens, evaluated) / 3600)


def _what_decides_lengths(config: TrainConfig) -> tuple[Any, ...]:
    return config.model.path, config.budget, config.reward.length, config.rollout.max_new_tokens


def _notes(
    config: TrainConfig, outline: Outline, work: Work, memory: Memory, rates: Rates | None
) -> tuple[str, ...]:
    notes = [f"has no effect: {key}" for key in without_effect(config)]
    if outline.tokenizer is None:
        notes.append(
            f"prompts and forced texts count as 0 tokens, there is no tokenizer: {outline.no_tokenizer}"
        )
    elif not work.problems:
        notes.append("prompts and forced texts count as 0 tokens: there are no problems yet")
    if rates is not None and rates.config is None:
        notes.append(f"which model {rates.source} is of is not known: there is no configuration beside it")
    elif rates is not None and rates.config is not None and rates.config.model.path != config.model.path:
        notes.append(f"the rates are those of the model {rates.config.model.path}")
    if config.budget.cuts:
        notes.append(
            "tokens have the solutions behind all cuts; KV cache and activations, rows with one solution"
        )
    if config.rollout.engine == "vllm":
        notes.append(
            "the KV cache is all that vLLM takes of a GPU by rollout.vllm_memory, its weights included; what "
            "it takes of a CPU's memory is not counted"
        )
    if config.rollout.dynamic_sampling:
        notes.append(
            f"dynamic sampling generates up to {config.rollout.max_batches} times the tokens that are "
            "trained on: in the hours at most, but not in those with rows as measured"
        )
    if memory.activations is None:
        notes.append("activations are not counted: the model's attention takes no packed rows")
    notes.append(
        "not counted: one forward over prompts, CUDA's context and graphs, fragmentation; several processes "
        "each hold all of it but share the rows"
    )
    return tuple(notes)
