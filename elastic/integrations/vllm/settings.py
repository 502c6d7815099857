"""What a vLLM server was started with, as budgets need it: markers, EOS ids, limits, budgets by default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from typing import Any

import torch

from elastic.budget import Markers
from elastic.budget.eos import eos_tuple, tokenizer_eos
from elastic.integrations.request_values import RequestBudget, check_defaults, read_values
from elastic.integrations.vllm.table import BudgetTables
from elastic.rollout.plan.default_markers import choose_markers
from elastic.sampling import row_seed

KEY = "elastic"
WHERE = f"additional_config[{KEY!r}]"
MARKERS = {"start_marker": "start", "end_marker": "end"}


class Settings:
    """A server's markers, EOS ids and limits, and what requests get that say nothing.

    `--additional-config '{"elastic": {...}}'` sets `start_marker`, `end_marker`, and every request value as a
    default. Without markers, those that `RolloutEngine` takes.

    Args:
        config: vLLM's configuration, `VllmConfig`.

    Attributes:
        tokenizer: of the model, apart from vLLM's own, which other threads use.
        defaults: request values of requests that do not give them.
        eos_ids: the ids with which vLLM ends a request.
        pad_id: the EOS id that a request emits once its budget has ended it.
        context_tokens: vLLM's `max_model_len`.
        rows: most requests of a batch.
        v2: whether vLLM's second model runner is in use.
        grammar_behind_thought: whether a grammar (structured outputs) holds only behind the thought.
        drafts: most draft tokens of a request in a step; 0 without speculative decoding.
        markers: those of requests with these further `end_markers`; a function, which remembers some.

    Raises:
        ValueError: an unknown key or a bad value, markers that the tokenizer does not have, no tokenizer, or
            prompts that may be embeddings.
    """

    def __init__(self, config: Any) -> None:
        model = config.model_config
        if model.enable_prompt_embeds:
            raise ValueError(
                "enable_prompt_embeds: expected False beside budgets, which read prompts; got True"
            )
        given = _given(config.additional_config)
        self._pair = {MARKERS[name]: given.pop(name) for name in MARKERS if name in given}
        check_defaults(given, WHERE)
        self.defaults: Mapping[str, Any] = given
        self.tokenizer = _load_tokenizer(model)
        self.eos_ids = _eos_ids(model, self.tokenizer)
        self.pad_id = next(iter((*tokenizer_eos(self.tokenizer), *self.eos_ids)), 0)
        self.context_tokens, self.rows = model.max_model_len, config.scheduler_config.max_num_seqs
        self.v2 = bool(config.use_v2_model_runner)
        structured = config.structured_outputs_config
        self.grammar_behind_thought = bool(structured.reasoning_parser) and not structured.enable_in_reasoning
        self.drafts = _drafts(config.speculative_config)
        self._seed, self._unseeded = model.seed or 0, count()
        self.markers = lru_cache(maxsize=64)(self._markers)
        default = read_values({}, given)
        self.markers(() if default is None else default.end_markers)

    def request(self, params: Any) -> RequestBudget | None:
        """The budget of a request, of its `SamplingParams`; see `read_values`."""
        return read_values(params.extra_args, self.defaults)

    def seed(self, params: Any) -> int:
        """A request's seed; one of the server's own where it gives none.

        That one follows from the server's seed and how many there were before, so that the processes of one
        model, which each see all requests in the same order, draw the same tokens.
        """
        return row_seed(self._seed, next(self._unseeded)) if params.seed is None else params.seed

    def tables(self, rows: int, device: torch.device | str = "cpu") -> BudgetTables:
        """Tables for so many different budgets at a time."""
        return BudgetTables(self.tokenizer, self.eos_ids, self.pad_id, rows, device)

    def _markers(self, ends: tuple[str, ...]) -> Markers:
        names = ("start_marker", "end_marker", "end_markers")
        return choose_markers(self.tokenizer, **self._pair, ends=ends, names=names)


def _drafts(speculative: Any) -> int:
    if speculative is None:
        return 0
    if speculative.rejection_sample_method == "synthetic":
        raise ValueError(
            "rejection_sample_method: expected another than 'synthetic' beside budgets, it accepts draft "
            "tokens by chance"
        )
    return int(speculative.num_speculative_tokens)


def _given(additional: Any) -> dict[str, Any]:
    given = additional.get(KEY, {}) if isinstance(additional, Mapping) else {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{WHERE}: expected an object of names and values, got {given!r}")
    return dict(given)


def _load_tokenizer(model: Any) -> Any:
    if model.skip_tokenizer_init:
        raise ValueError(
            "skip_tokenizer_init: expected False beside budgets, which need the tokenizer; got True"
        )
    from vllm.tokenizers import get_tokenizer

    return get_tokenizer(
        model.tokenizer,
        runner_type=model.runner_type,
        tokenizer_mode=model.tokenizer_mode,
        revision=model.tokenizer_revision,
        trust_remote_code=model.trust_remote_code,
    )


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """As vLLM has them: the tokenizer's, and those of the generation config."""
    further = model.try_get_generation_config().get("eos_token_id")
    return eos_tuple([*tokenizer_eos(tokenizer), *([] if further is None else eos_tuple(further))])
