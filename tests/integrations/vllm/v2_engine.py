"""Runs jobs in vLLM with its V2 runner and a scripted drafter: `python -m ... MODEL JOBS RESULTS`.

JOBS is a JSON object, name -> {engine: arguments of `LLM`, drafter: of `Scripted`, requests: [...]}. RESULTS
gets, for each name, the requests' tokens and what happened on the way.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from tests.integrations.vllm import triton_on_cpu as triton_on_cpu  # first

import torch  # isort: skip
from vllm import LLM, SamplingParams  # isort: skip
from vllm.v1.worker.gpu import model_runner  # isort: skip
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator  # isort: skip

from elastic.integrations.vllm.v2 import V2Budgets  # isort: skip
from tests.rollout.small_models import VOCAB  # isort: skip

SLOTS = 4


class Scripted(BaseSpeculator):
    """Drafts what the job says, beside what is right.

    Args:
        states: vLLM's request states.
        drafts: k.
        right: prompt -> the tokens behind it.
        kind: "right", or "mixed": right with a chance, else a marker, EOS or a letter.
        with_probabilities: whether drafts come with the logits they were drawn from, as a draft model's do.
    """

    supports_mm_inputs = False

    def __init__(
        self, states: Any, drafts: int, right: dict[str, list[int]], kind: str, with_probabilities: bool
    ):
        self._states, self._drafts, self._right, self._kind = states, drafts, right, kind
        self._chance = random.Random(0)
        self.draft_logits = torch.zeros(SLOTS, drafts, VOCAB) if with_probabilities else None

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
        if self._kind == "right" or (self._kind == "mixed" and self._chance.random() < 0.6):
            return right
        return self._chance.choice([1, 2, 3, 9, 14])


def run(model: str, job: dict[str, Any]) -> dict[str, Any]:
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
        model_runner.init_speculator = lambda config, device, states: Scripted(states, drafts, **script)
    llm = LLM(
        model,
        enforce_eager=True,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=SLOTS,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**24,
        **{"logits_processors": ["elastic.integrations.vllm:ElasticBudgets"], **options},
    )
    try:
        outputs = llm.generate(
            [{"prompt_token_ids": request["prompt"]} for request in job["requests"]],
            [SamplingParams(**request["params"]) for request in job["requests"]],
            use_tqdm=False,
        )
        return {"tokens": [list(output.outputs[0].token_ids) for output in outputs], **happened}
    finally:
        llm.llm_engine.engine_core.shutdown()
        V2Budgets.add_request, V2Budgets.apply = add, apply  # type: ignore[method-assign]


if __name__ == "__main__":
    given, jobs, results = sys.argv[1:]
    everything = json.loads(Path(jobs).read_text())
    Path(results).write_text(json.dumps({name: run(given, job) for name, job in everything.items()}))
