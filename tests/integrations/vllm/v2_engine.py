"""Runs jobs in vLLM with its V2 runner and a scripted drafter: `python -m ... JOBS RESULTS`.

JOBS is a JSON file, name -> {model: folder, engine: arguments of `LLM`, drafter: of `Scripted` or none,
requests: [{prompt, params}], refused: such requests}. RESULTS gets, for each name, the requests' tokens, the
errors of those to be refused, and what happened on the way.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integrations.vllm import triton_on_cpu as triton_on_cpu  # first

import torch  # isort: skip
from vllm import LLM, SamplingParams  # isort: skip
from vllm.exceptions import VLLMValidationError  # isort: skip
from vllm.sampling_params import StructuredOutputsParams  # isort: skip
from vllm.v1.worker.gpu import model_runner  # isort: skip
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator  # isort: skip

from elastic.integrations.vllm.v2 import V2Budgets  # isort: skip

SLOTS = 4


class Scripted(BaseSpeculator):
    """Drafts what is right with a chance, and else one of some other tokens.

    Args:
        states: vLLM's request states.
        drafts: k.
        vocabulary: V.
        right: prompt -> the tokens behind it.
        chance: of a right token.
        others: tokens to draft else.
        with_logits: whether drafts come with logits they might have been drawn from, as a draft model's do.
    """

    supports_mm_inputs = False

    def __init__(
        self,
        states: Any,
        drafts: int,
        vocabulary: int,
        *,
        right: dict[str, list[int]],
        chance: float,
        others: list[int],
        with_logits: bool,
    ):
        self._states, self._drafts, self._right, self._chance = states, drafts, right, chance
        self._others, self._random = others, random.Random(0)
        self.draft_logits = torch.zeros(SLOTS, drafts, vocabulary) if with_logits else None

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        pass

    def capture(self) -> None:
        pass

    def propose(self, input_batch: Any, *tensors: Any, dummy_run: bool = False, **more: Any) -> torch.Tensor:
        slots = [] if dummy_run else input_batch.idx_mapping.tolist()
        drafts = [self._draft(slot) for slot in slots] or [[0] * self._drafts] * input_batch.num_reqs
        return torch.tensor(drafts)

    def _draft(self, slot: int) -> list[int]:
        tokens = self._states.all_token_ids.gpu[slot, : self._states.total_len.gpu[slot]].tolist()
        prompt = int(self._states.prompt_len.np[slot])
        right = self._right.get(str(tokens[:prompt]), [])[len(tokens) - prompt :]
        padded = (right + [0] * self._drafts)[: self._drafts]
        return [self._token(token) for token in padded]

    def _token(self, right: int) -> int:
        return right if self._random.random() < self._chance else self._random.choice(self._others)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Tokens of a job's requests; how many returned from preemption, and the rows of its steps."""
    happened = {"resumed": 0, "steps": 0, "rows": 0}
    add, apply = V2Budgets.add_request, V2Budgets.apply

    def counting_add(self: Any, slot: int, params: Any) -> bool:
        happened["resumed"] += int(self._vllm.prefill_len.np[slot] > self._vllm.prompt_len.np[slot])
        return add(self, slot, params)

    def counting_apply(self: Any, logits: Any, ctx: Any) -> Any:
        happened["steps"] += 1
        happened["rows"] += len(logits)
        return apply(self, logits, ctx)

    V2Budgets.add_request, V2Budgets.apply = counting_add, counting_apply  # type: ignore[method-assign]
    options, script = dict(job["engine"]), job.get("drafter")
    if script:
        drafts = options["speculative_config"]["num_speculative_tokens"]
        model_runner.init_speculator = lambda config, device, states: Scripted(
            states, drafts, config.model_config.get_vocab_size(), **script
        )
    llm = LLM(
        job["model"],
        enforce_eager=True,
        dtype="float32",
        max_num_seqs=SLOTS,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**24,
        **{"logits_processors": ["elastic.integrations.vllm:ElasticBudgets"], **options},
    )
    try:
        errors = [_error(llm, request) for request in job.get("refused", ())]
        return {"tokens": _tokens(llm, job["requests"]), "errors": errors, **happened}
    finally:
        llm.llm_engine.engine_core.shutdown()
        V2Budgets.add_request, V2Budgets.apply = add, apply  # type: ignore[method-assign]


def _tokens(llm: LLM, requests: Sequence[dict[str, Any]]) -> list[list[int]]:
    prompts = [{"prompt_token_ids": request["prompt"]} for request in requests]
    params = [_params(**request["params"]) for request in requests]
    return [list(out.outputs[0].token_ids) for out in llm.generate(prompts, params, use_tqdm=False)]


def _params(structured_outputs: Any = None, **params: Any) -> SamplingParams:
    grammar = None if structured_outputs is None else StructuredOutputsParams(**structured_outputs)
    return SamplingParams(structured_outputs=grammar, **params)


def _error(llm: LLM, request: dict[str, Any]) -> str:
    try:
        _tokens(llm, [request])
    except VLLMValidationError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    jobs, results = map(Path, sys.argv[1:])
    results.write_text(json.dumps({name: run(job) for name, job in json.loads(jobs.read_text()).items()}))
