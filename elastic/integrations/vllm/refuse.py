"""Which requests are refused: those whose budget could not be kept beside their other parameters."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

from elastic.budget import Budget, Phase
from elastic.budget.forced_text import forced_texts
from elastic.integrations.request_values import RequestBudget, under_our_names
from elastic.integrations.vllm.settings import Settings


class Refusal:
    """Checks requests before they reach the engine. Safe to call from several threads.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, Lock()
        self._tables = settings.tables(rows=1)
        self._least = lru_cache(maxsize=1024)(self._checked)

    def check(self, params: Any) -> None:
        """Refuses a request whose budget could not be kept. One without a budget passes.

        Args:
            params: its `SamplingParams`.

        Raises:
            ValueError: naming the value, and the limit.
        """
        request = self._settings.request(params)
        if request is None:
            return
        self._check_params(params, request)
        with self._lock:  # a tokenizer is for one thread at a time
            least, tail = self._least(request)
        if tail and params.structured_outputs is not None:
            raise ValueError(
                f"closing: expected nothing behind its end marker beside structured_outputs, whose grammar "
                f"does not know it, got {tail} tokens"
            )
        if params.max_tokens is not None and params.max_tokens < least and not request.may_be_cut:
            raise ValueError(
                f"max_tokens: expected at least {least}, so that thinking, the closing text and one solution "
                f"token fit, got {params.max_tokens}; give a smaller thinking_budget, or may_be_cut=1"
            )

    def _check_params(self, params: Any, request: RequestBudget) -> None:
        budget, settings = request.budget, self._settings
        bounded = budget.solution is not None or budget.total is not None
        if bounded and not settings.eos_ids:
            raise ValueError("solution_budget, total_budget: expected none, the model has no EOS to end with")
        if params.ignore_eos:
            raise ValueError(
                "ignore_eos: expected False beside a budget, which ends requests with an EOS; got True"
            )
        if params.thinking_token_budget is not None:
            raise ValueError(
                "thinking_token_budget: expected None beside thinking_budget, both would end thinking; got "
                f"{params.thinking_token_budget}"
            )
        if params.trace_decode_token_ids is not None:
            raise ValueError(
                "trace_decode_token_ids: expected None beside a budget, whose place the trace would take"
            )
        if params.structured_outputs is not None:
            self._check_grammar(budget)
        most = budget.max_sampled
        if most is not None and params.min_tokens > most:
            raise ValueError(
                f"min_tokens: expected at most {most}, which the budget lets be sampled, got "
                f"{params.min_tokens}"
            )
        if settings.v2:
            return
        # This runner penalises behind our draw, so a penalty would have no effect.
        for name, off in (("presence_penalty", 0.0), ("frequency_penalty", 0.0), ("repetition_penalty", 1.0)):
            value = getattr(params, name)
            if value != off:
                raise ValueError(
                    f"{name}: expected {off} beside a budget with the V1 model runner, got {value}"
                )

    def _check_grammar(self, budget: Budget) -> None:
        """A grammar knows no forced token, so there may be none where it holds."""
        if not self._settings.grammar_behind_thought:
            raise ValueError(
                "structured_outputs: expected None beside a budget, unless the server has a reasoning_parser "
                "and no enable_in_reasoning: forced tokens break a grammar that holds for the thought, too"
            )
        if budget.solution is not None or budget.total is not None:
            raise ValueError(
                "structured_outputs: expected None beside solution_budget and total_budget, whose end no "
                "grammar knows"
            )

    def _checked(self, request: RequestBudget) -> tuple[int, int]:
        """Of a request whose texts and counts the server can keep.

        Returns:
            Its least `max_tokens`, and how many tokens its closing text has behind the end marker.
        """
        budget, settings = request.budget, self._settings
        markers = settings.markers(request.end_markers)
        table, row = self._tables.acquire(budget, markers)
        table.release(row)
        texts = forced_texts(budget, markers, settings.tokenizer, frozenset(settings.eos_ids))
        tail = len(texts.closing) - texts.tail
        # The most common start; what a row writes before it opens thinking itself comes on top.
        start: dict[str, Any] = {
            "phase": request.phase or Phase.THINKING,
            "thinking_used": request.thinking_used,
        }
        if start["phase"] == Phase.OPENING:
            start = {"phase": Phase.THINKING}
        try:
            budget.check_context(settings.context_tokens, 1, markers, **start)
        except ValueError as error:
            raise ValueError(under_our_names(str(error))) from None
        if budget.thinking is None:
            return 1, tail
        one = replace(budget, solution=1, total=None).max_tokens(markers, **start)
        assert one is not None  # both phases are bounded
        return one, tail
