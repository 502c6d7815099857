"""Rollouts by TRL's vLLM server, which enforces the budgets: it runs with `ElasticBudgets`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object

from elastic.budget import Budget, Markers, Phase
from elastic.integrations.request_values import RequestBudget, values_of
from elastic.integrations.trl.generation import Generation
from elastic.rollout import RolloutBatch, foreign_batch
from elastic.rollout.plan.default_markers import default_markers

PROCESSOR = "elastic.integrations.vllm:ElasticBudgets"
_MOST_REQUESTS = 64  # at a time


class VLLMServer:
    """The server that a trainer with `use_vllm=True` and `vllm_mode="server"` is connected to.

    Args:
        markers: of thinking, those of the server; by default those that both find in the tokenizer.
    """

    def __init__(self, markers: Markers | None) -> None:
        self._markers = markers
        self._checked: Any = None  # the client whose server was found to be right
        self._logprobs_mode = ""

    def generate(
        self, trainer: Any, generation: Generation, budgets: Sequence[Budget], phase: Phase | None
    ) -> RolloutBatch:
        """One completion for each row, on the CPU. Every process must call it.

        Args:
            trainer: a GRPOTrainer.
            generation: its rows.
            budgets: one per row, the same for the rows of a group.
            phase: where the rows start; None reads it from the prompts.

        Raises:
            ValueError: the server does not go with budgets, or a budget does not fit `max_completion_length`.
            RuntimeError: a completion that does not keep to its budget.
        """
        tokenizer = trainer._tokenizer
        if self._markers is None:
            self._markers = default_markers(tokenizer)
        markers = self._markers
        phases = [markers.initial_phase(prompt) if phase is None else phase for prompt in generation.prompts]
        rows = zip(generation.prompts, budgets, phases, strict=True)
        limits = [
            _most_tokens(
                budget, budget.max_tokens(markers, tokenizer, phase=start), generation.max_new_tokens
            )
            for _, budget, start in rows
        ]
        requests = [
            (prompt, {"max_tokens": limit, "vllm_xargs": values_of(RequestBudget(budget, phase=phase))})
            for prompt, budget, limit in zip(generation.prompts, budgets, limits, strict=True)
        ]
        completions, logprobs = self._completed(trainer, generation, requests)
        try:
            return foreign_batch(
                *(completions, budgets, markers),
                prompts=generation.prompts,
                prompt_index=range(len(requests)),
                phases=phases,
                seeds=generation.request_seeds,
                tokenizer=tokenizer,
                eos_ids=trainer.eos_token_ids,
                logprobs=logprobs,
            )
        except ValueError as error:
            raise RuntimeError(
                f"the vLLM server returned a completion that does not keep to its budget: {error}; its "
                "markers (--additional-config) must be those of elastic_rollout_func"
            ) from error

    def _completed(self, trainer: Any, generation: Generation, requests: list[Any]) -> tuple[Any, Any]:
        """Completions and logprobs of this process's rows; the main process asks for all of them."""
        every, size = gather_object(requests), generation.group_size
        answer: list[Any] = [None]
        if trainer.accelerator.is_main_process:
            try:
                answer = [self._ask(trainer, generation, every[::size])]
            except Exception as error:  # the others wait for an answer
                answer = [error]
        broadcast_object_list(answer, from_process=0)
        if isinstance(answer[0], Exception):
            raise answer[0]
        first = trainer.accelerator.process_index * len(requests)
        own = slice(first, first + len(requests))
        completions, logprobs = answer[0]
        return completions[own], None if logprobs is None else logprobs[own]

    def _ask(self, trainer: Any, generation: Generation, groups: list[Any]) -> tuple[Any, Any]:
        """Completions and logprobs of all groups, one request a group."""
        client, sampling = trainer.vllm_generation.vllm_client, generation.sampling
        if self._checked is not client:
            self._check(trainer, client.get_server_info()["model_config"])
            self._checked = client

        def send(group: int) -> Any:
            prompt, values = groups[group]
            return client.generate(
                prompts=[prompt],
                n=generation.group_size,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                logprobs=0,
                generation_kwargs={**values, "seed": generation.group_seed(group)},
            )

        with ThreadPoolExecutor(min(_MOST_REQUESTS, len(groups))) as pool:
            answers = list(pool.map(send, range(len(groups))))
        completions = [row for answer in answers for row in answer["completion_ids"]]
        if not self._comparable(trainer):
            return completions, None
        return completions, [[token[0] for token in row] for answer in answers for row in answer["logprobs"]]

    def _check(self, trainer: Any, server: dict[str, Any]) -> None:
        """Refuses a server that would not keep to budgets, or whose logprobs would be misread.

        Args:
            server: its `model_config`.
        """
        if PROCESSOR not in (server["logits_processors"] or []):
            raise ValueError(
                f"the vLLM server knows no budgets; start it with --logits-processors {PROCESSOR}, got "
                f"logits_processors={server['logits_processors']}"
            )
        self._logprobs_mode = server["logprobs_mode"]
        needed = {
            "vllm_importance_sampling_correction": trainer.vllm_importance_sampling_correction,
            "off_policy_mask_threshold": trainer.off_policy_mask_threshold is not None,
        }
        names = [name for name, used in needed.items() if used]
        if names and not self._comparable(trainer):
            raise ValueError(
                f"{', '.join(names)}: needs the logprobs of the tempered model, which a vLLM server with "
                "budgets has at temperature 1 with --logprobs-mode raw_logprobs alone; got temperature="
                f"{trainer.temperature} and {self._logprobs_mode}"
            )

    def _comparable(self, trainer: Any) -> bool:
        """Whether the server's logprobs are those of the trainer's tempered softmax.

        Processed ones are of what the budgets' processor leaves, which is the token that it drew: all 0.
        """
        return self._logprobs_mode == "raw_logprobs" and trainer.temperature == 1


def _most_tokens(budget: Budget, most: int | None, limit: int) -> int:
    """The `max_tokens` of a request."""
    if most is None:
        return limit
    if most > limit:
        raise ValueError(
            f"max_completion_length: expected at least the {most} tokens of {budget}, got {limit}"
        )
    return most + 1  # a row whose budget is spent is ended by an EOS, which is no part of it
