"""`elastic eval`: methods x budgets x sets, with samples on disk and tables at the end."""

import sys
import warnings
from dataclasses import asdict
from typing import Any, TextIO

from elastic.commands.eval_flags import EvalRequest
from elastic.commands.generate import MARKER_FLAGS
from elastic.data import NAMED_SETS, Problem, contamination, load
from elastic.data.overlap import NEARLY_ALL
from elastic.evaluate.engines import ENGINES, open_engine
from elastic.evaluate.report.overview import overview
from elastic.evaluate.run.evaluate import evaluate
from elastic.evaluate.run.open_set import eval_set
from elastic.integrations.vllm.engine import VLLMEngine
from elastic.integrations.vllm.installed import require_vllm
from elastic.models.loading import load_model, load_tokenizer
from elastic.rewards.code import Rules, code_grader
from elastic.rollout.plan.default_markers import choose_markers


def run(request: EvalRequest, out: TextIO) -> None:
    """Evaluates, or goes on with what an earlier call left, and shows the tables.

    Raises:
        ValueError: data, model, engine or folder cannot be used, or whatever `evaluate` refuses.
        OSError: the folder cannot be written.
    """
    if request.engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got '{request.engine}'")
    problems = {source: _problems(source, request) for source in request.data}
    _check_programs(problems, request)
    for source in request.trained_on:
        _warn_of_training(source, problems, request)
    model, tokenizer, options = _model(request)
    markers = choose_markers(
        tokenizer, request.start_marker, request.end_marker, request.end, names=MARKER_FLAGS
    )
    sets = [
        eval_set(
            *(source, found, tokenizer),
            reward=request.reward,
            rules=request.rules,
            chat=request.chat,
            system=request.system,
            suffix=request.suffix,
        )
        for source, found in problems.items()
    ]
    engine = open_engine(request.engine, model, tokenizer, markers, max_rows=request.max_rows, **options)
    samples = evaluate(
        engine,
        sets,
        request.methods,
        request.budgets,
        samples=request.samples,
        sampling=request.sampling,
        options=request.options,
        max_new_tokens=request.max_new_tokens,
        out=request.out,
        texts=request.texts,
        chunk_rows=request.chunk_rows,
        ks=request.ks,
    )
    if isinstance(engine, VLLMEngine):
        engine.close()
    print(overview(samples, request.ks), file=out)
    print(f"elastic: eval: {len(samples)} samples and the rows are in {request.out}", file=sys.stderr)


def _model(request: EvalRequest) -> tuple[Any, Any, dict[str, Any]]:
    """The model, its tokenizer and further options of the engine; vLLM loads the weights itself.

    Raises:
        ValueError: what vLLM does not read.
    """
    if request.engine != "vllm":
        names = ("device", "dtype", "allow_missing")
        read: dict[str, Any] = {name: getattr(request, name) for name in names}
        return *load_model(request.model, **read), {}
    require_vllm()
    if request.device != "auto":
        raise ValueError(f"device: expected 'auto', vLLM takes the first it sees, got '{request.device}'")
    if request.allow_missing:
        raise ValueError("allow_missing=True: has no effect: vLLM takes no checkpoint that lacks weights")
    options = {} if request.dtype == "auto" else {"dtype": request.dtype}
    return request.model, load_tokenizer(request.model), options


def _problems(source: str, request: EvalRequest) -> list[Problem]:
    """The problems of one set; of a generated one the test split, unless another is asked for."""
    split = request.split or ("test" if source in NAMED_SETS else None)
    return load(source, count=request.count, split=split, seed=request.data_seed)


def _check_programs(sets: dict[str, list[Problem]], request: EvalRequest) -> None:
    """Before a model is loaded: whether programs can be run, where there are some."""
    if any(problem.tests for problems in sets.values() for problem in problems):
        code_grader(request.rules)
        return
    for name, value in asdict(request.rules).items():
        if value != getattr(Rules(), name):
            raise ValueError(f"{name}={value}: has no effect: no problem here is graded by tests")


def _warn_of_training(source: str, sets: dict[str, list[Problem]], request: EvalRequest) -> None:
    """A warning for each set some of whose questions stand among those that the model was trained on."""
    training = load(source, count=request.count if source in NAMED_SETS else None)
    for name, problems in sets.items():
        # Different questions of a generated set share most of their words.
        found = contamination(training, problems, min_share=1.0 if name in NAMED_SETS else NEARLY_ALL)
        if found:
            warnings.warn(
                f"data: {len(found)} of {len(problems)} problems of '{name}' (as '{found[0].evaluation}') "
                f"stand in '{source}' too: accuracy on them shows what the model has seen",
                stacklevel=2,
            )
