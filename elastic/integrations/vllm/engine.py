"""VLLMEngine: completions of many prompts under budgets, decoded by vLLM in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from elastic.budget import Budget, FinishReason
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.integrations.vllm.engine_llm import check_options, open_llm, refresh
from elastic.integrations.vllm.engine_model import checkpoint_weights, describe, folder, outline
from elastic.integrations.vllm.engine_rows import ROW, CallRows
from elastic.integrations.vllm.installed import require_vllm
from elastic.models.loading import check_device, check_dtype
from elastic.rollout import RolloutBatch
from elastic.rollout.outcome import batch_of
from elastic.rollout.plan.default_markers import default_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import OverContext, Plan, make_plan
from elastic.rollout.plan.starts import PhaseName
from elastic.sampling import Sampling


class VLLMEngine:
    """Decodes with vLLM: its model, its paged KV cache and its scheduler; the draws are `elastic.ops.sample`.

    So rows are those of `RolloutEngine` for the same seeds, as far as the logits are, and the record is the
    same: sources and both logprobs are written down as tokens are drawn, none is read off vLLM's answers.
    vLLM runs in this process, on one device, with its first model runner.

    Args:
        model: a path as of `elastic.load_model`, whose weights vLLM loads itself; or a loaded causal model of
            transformers, whose weights are copied into vLLM's, and again at every `refresh`.
        tokenizer: its tokenizer; by default, of a path, the one that lies there.
        markers: thinking markers; by default as for `RolloutEngine`.
        max_rows: most rows decoded together, vLLM's `max_num_seqs`.
        eos_ids: as for `RolloutEngine`.
        max_length: as for `RolloutEngine`; vLLM's `max_model_len`.
        options: others of `vllm.LLM`, as `gpu_memory_utilization`. `dtype` is by default that of a loaded
            model, and for a path that of `elastic.load_model`; `enforce_eager` is True on a CPU, where vLLM
            takes a minute to compile even a small model.

    Attributes:
        model: the loaded model; None for a path.
        name: what the model is called.

    Raises:
        ModuleNotFoundError: vLLM is not installed; names the extra.
        TypeError, ValueError: a tokenizer or markers that do not belong to the model, `max_rows` below 1, an
            option that the engine sets itself; or what vLLM refuses.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        markers: Markers | None = None,
        max_rows: int = 64,
        *,
        eos_ids: EosIds = None,
        max_length: int | None = None,
        **options: Any,
    ):
        require_vllm()
        check_options(options)
        if not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 1:
            raise ValueError(f"max_rows: expected an integer from 1, got {max_rows!r}")
        self.model: Any = None if isinstance(model, (str, os.PathLike)) else model
        described = model
        if self.model is None:
            described, own = outline(model)
            tokenizer = own if tokenizer is None else tokenizer
        elif tokenizer is None:
            raise TypeError("tokenizer: expected one beside a loaded model, got None")
        self.name = os.fspath(model) if self.model is None else described.config._name_or_path
        self.tokenizer, self.max_rows = tokenizer, max_rows
        self.markers = default_markers(tokenizer) if markers is None else markers
        limits = model_limits(described, tokenizer, self.markers, eos_ids, max_length)
        self._rows = CallRows(tokenizer, self.markers, limits, max_rows)
        defaults = {"dtype": self._dtype(described), "enforce_eager": check_device("auto").type == "cpu"}
        options = {**defaults, "max_model_len": limits.context, **options}
        if self.model is None:
            self._llm = open_llm(self._rows, model=os.fspath(folder(model)), **options)
        else:
            with TemporaryDirectory() as where:
                describe(model, tokenizer, Path(where))
                self._llm = open_llm(self._rows, model=where, load_format="dummy", **options)
            self.refresh()
        self.limits = replace(limits, context=self._llm.llm_engine.model_config.max_model_len)

    def _dtype(self, described: Any) -> str:
        own = check_dtype("auto", check_device("auto"), described.config) if self.model is None else None
        return str(own or described.dtype).removeprefix("torch.")

    def refresh(self) -> None:
        """Copies the loaded model's weights of now into vLLM's, and drops vLLM's cached prefixes.

        Raises:
            ValueError: the engine was opened with a path.
        """
        if self.model is None:
            raise ValueError(f"refresh: expected an engine of a loaded model, got that of {self.name!r}")
        refresh(self._llm, checkpoint_weights(self.model))

    def close(self) -> None:
        """Ends vLLM and frees what it holds. The engine cannot be used afterwards."""
        self._llm.llm_engine.engine_core.shutdown()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        budget: Budget | Sequence[Budget] | None = None,
        samples_per_prompt: int = 1,
        sampling: Sampling | Sequence[Sampling] | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        *,
        add_special_tokens: bool | None = None,
        phase: PhaseName | Sequence[PhaseName | None] | None = None,
        thinking_used: int | Sequence[int] | Tensor | None = None,
        over_context: OverContext = "raise",
    ) -> RolloutBatch:
        """As `RolloutEngine.generate`; a progress bar is shown where `progress` is True.

        Returns:
            RolloutBatch on the CPU.

        Raises:
            TypeError, ValueError: as of `RolloutEngine.generate`.
            RuntimeError: the logits of a row hold NaN, or vLLM ended a row that its budget did not end.
        """
        plan = make_plan(
            *(prompts, budget, samples_per_prompt, sampling, max_new_tokens, seeds),
            tokenizer=self.tokenizer,
            markers=self.markers,
            limits=self.limits,
            add_special_tokens=add_special_tokens,
            phase=phase,
            thinking_used=thinking_used,
            over_context=over_context,
        )
        with self._rows.of(plan):
            written = self._decode(plan, progress is True)
            outcome = self._rows.outcome()
        batch = batch_of(outcome, plan, self.limits, self.markers, self.tokenizer)
        _check(batch, plan, written)
        return batch

    def _decode(self, plan: Plan, progress: bool) -> list[list[int]]:
        """The ids that vLLM writes for each row; it goes on with pad ids where a row has none to end it."""
        from vllm import SamplingParams

        requests = [{"prompt_token_ids": plan.prompts[k]} for k in plan.prompt_index]
        # The draw leaves one token, so the likeliest is the one drawn. Ends are ours, not the tokenizer's.
        ends = {"ignore_eos": True, "stop_token_ids": list(self.limits.eos_ids), "detokenize": False}
        params = [
            SamplingParams(temperature=0.0, max_tokens=most, extra_args={ROW: row}, **ends)
            for row, most in enumerate(plan.most)
        ]
        outputs = self._llm.generate(requests, params, use_tqdm=progress)
        return [list(output.outputs[0].token_ids) for output in outputs]


def _check(batch: RolloutBatch, plan: Plan, written: list[list[int]]) -> None:
    """That vLLM wrote what was drawn, and all of it.

    Raises:
        RuntimeError: naming the row.
    """
    lengths, cut = batch.lengths.tolist(), (batch.finish_reason == FinishReason.LENGTH).tolist()
    for row, (ids, length) in enumerate(zip(written, lengths, strict=True)):
        if ids[:length] != batch.tokens[row, :length].tolist():
            raise RuntimeError(f"generate: vLLM wrote other tokens of row {row} than were drawn")
        if cut[row] and length < plan.most[row]:
            raise RuntimeError(f"generate: vLLM ended row {row} after {length} of {plan.most[row]} tokens")
