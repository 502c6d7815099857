"""The real engine in this process, and requests to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from elastic.budget import Budget
from elastic.integrations.request_values import RequestBudget, values_of

PROCESSOR = "elastic.integrations.vllm:ElasticBudgets"


@contextmanager
def engine(folder: Path, elastic: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
    """An `LLM` on the CPU, float32, without compilation; `elastic` is the part of its additional config."""
    from vllm import LLM

    llm = LLM(
        str(folder),
        **{
            "dtype": "float32",
            "enforce_eager": True,
            "max_num_seqs": 16,
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
            "logits_processors": [PROCESSOR],
            "additional_config": {"elastic": elastic or {}},
            "enable_prefix_caching": False,
            **options,
        },
    )
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


def params(request: Budget | RequestBudget | None = None, **options: Any) -> Any:
    """Sampling parameters of a request under a budget, greedy unless said otherwise."""
    from vllm import SamplingParams

    request = RequestBudget(request) if isinstance(request, Budget) else request
    extra = None if request is None else values_of(request)
    return SamplingParams(**{"temperature": 0.0, "max_tokens": None, "extra_args": extra, **options})


def tokens(llm: Any, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[list[int]]:
    """The output ids of each request."""
    asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    return [list(out.outputs[0].token_ids) for out in llm.generate(asked, list(params), use_tqdm=False)]


def preempt_often(llm: Any) -> list[str]:
    """Preempts all that runs in front of every fifth step, besides those for which blocks run out.

    Returns:
        A list that grows by one with every preemption.
    """
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    seen: list[str] = []
    steps, preempt, schedule = count(1), scheduler._preempt_request, scheduler.schedule

    def seen_to(request: Any, *rest: Any, **named: Any) -> Any:
        seen.append(request.request_id)
        return preempt(request, *rest, **named)

    def after_all_have_lost_their_place(*rest: Any, **named: Any) -> Any:
        if next(steps) % 5 == 0:
            scheduler.reset_prefix_cache(reset_running_requests=True)
        return schedule(*rest, **named)

    scheduler._preempt_request, scheduler.schedule = seen_to, after_all_have_lost_their_place
    return seen
