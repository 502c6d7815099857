"""RolloutEngine: completions of many prompts under budgets, by the own forward of a Hugging Face model."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from elastic import ops
from elastic.budget import Budget, FinishReason, Source
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.rollout.attention import candidates
from elastic.rollout.compiled import MODES
from elastic.rollout.decode import Decoder, OnToken
from elastic.rollout.default_markers import default_markers
from elastic.rollout.encoding import special_token_warnings
from elastic.rollout.graphs import graphs_for
from elastic.rollout.limits import model_limits
from elastic.rollout.plan import Plan, make_plan
from elastic.rollout.poll import Poll
from elastic.rollout.pooling import Pooling
from elastic.rollout.proof import prove_decoding
from elastic.rollout.record import RolloutBatch
from elastic.rollout.servable import check_servable
from elastic.rollout.serving import serving
from elastic.rollout.starts import PhaseName, ambiguous_prompts, never_thought
from elastic.rollout.stepper import Stepper
from elastic.sampling import Sampling

_POLL_STEPS_ON_GPU = 8
_BAR_DELAY_S = 2.0  # a run that is over by then needs no bar
_NEEDED_ARGUMENTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")


class RolloutEngine:
    """Decodes with a slot KV cache: a row that ends gives its slot to the next one in the queue.

    The model is used as it is: put into eval mode for the call, and every module back into its own. Prompts
    run on the model's own attention (on SDPA where that is flash-attn and the model is not on a GPU), steps
    on the one that `attention` names. A second thread that uses the same model waits until the call is done.

    Args:
        model: a causal Hugging Face model on its device; every layer full or sliding attention. The cache
            keeps all tokens of a row for either.
        tokenizer: its tokenizer.
        markers: thinking markers; by default those that `default_markers` finds: `<think>` and `</think>`, or
            another well-known pair that this vocabulary has in their place (with a warning), and tool calls
            that end thinking.
        max_rows: most rows decoded together, S. The KV cache has as many slots, of up to four lengths, as the
            rows' budgets ask for (`kv_bytes`).
        device: by default the model's.
        eos_ids: tokens that end a row; by default those of the model's generation config and the tokenizer.
            An empty list is none: rows end at their budgets, `max_new_tokens` or the context alone.
        max_length: most tokens of prompt and completion; by default, and at most, the model's context.
        progress: whether to show a progress bar; None shows one on a terminal once a run takes two seconds.
        refill_rows: free slots that start a refill; by default an eighth of the slots.
        poll_every: steps between looks for finished rows; by default 1 on the CPU, 8 on a GPU.
        add_special_tokens: whether prompts given as texts get what the tokenizer puts in front of a text, for
            many models a BOS. By default they do not, which is right for a chat template's output, and a
            warning says where the tokenizer would have added something. False says that this is meant.
        attention: of the rows over their slots: "flash" (flash-attn's kernel for caches, which reads each
            row's own columns), "flex" (torch's compiled flex_attention, likewise) or "sdpa" (under a mask).
            "auto" takes flash where a package of it is installed and serves device, dtype and model, else
            flex on a GPU and sdpa on a CPU. A model whose attention cannot be exchanged decodes by its own
            under a mask. The choice is printed to stderr in one line, unless it is that of a CPU.
        compile: whether the model's part of a step goes through `torch.compile`: "on", "off", or "auto": on a
            GPU, once the steps taken in a shape, with those of the call ahead, pay for it
            (`elastic.rollout.compiled.PAYS_STEPS`). Where it fails, that is said, and steps go on without.

    On a GPU whole steps are captured in CUDA graphs. The graphs, the KV cache and what else they work on are
    kept from call to call, at the size of the largest so far, unless that is over an eighth of the GPU's
    memory; `release` frees them.

    Raises:
        TypeError, ValueError: a model or tokenizer that cannot be served, or an argument out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        markers: Markers | None = None,
        max_rows: int = 64,
        *,
        device: torch.device | str | None = None,
        eos_ids: EosIds = None,
        max_length: int | None = None,
        progress: bool | None = None,
        refill_rows: int | None = None,
        poll_every: int | None = None,
        add_special_tokens: bool | None = None,
        attention: str = "auto",
        compile: str = "auto",
    ):
        for name, value in (("max_rows", max_rows), ("refill_rows", refill_rows), ("poll_every", poll_every)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name}: expected an integer from 1, got {value!r}")
        if compile not in MODES:
            raise ValueError(f"compile: expected one of {', '.join(map(repr, MODES))}, got {compile!r}")
        if not hasattr(model, "config") or not callable(getattr(model, "forward", None)):
            raise TypeError(
                f"model: expected a Hugging Face causal language model, got {type(model).__name__}"
            )
        check_servable(model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter
        missing = [a for a in _NEEDED_ARGUMENTS if a not in inspect.signature(base.forward).parameters]
        if missing:
            raise ValueError(f"model: {type(base).__name__}.forward takes no {', '.join(missing)}")
        self.model, self.tokenizer = model, tokenizer
        self.markers = default_markers(tokenizer) if markers is None else markers
        self.max_rows, self.refill_rows, self.progress = max_rows, refill_rows, progress
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self.limits = model_limits(model, tokenizer, self.markers, eos_ids, max_length)
        on_gpu = self.device.type != "cpu"
        self.poll_every = poll_every or (_POLL_STEPS_ON_GPU if on_gpu else 1)
        self._lagged = on_gpu
        self.add_special_tokens = add_special_tokens
        self._said: set[str] = set()  # kinds of warnings
        choices = candidates(model, attention, self.device)
        with serving(model):
            self._attention = prove_decoding(model, self.limits.context, choices)
        self._pooling = Pooling(model, self.device, self._attention.backend != "mask")
        compile = "off" if compile == "auto" and not on_gpu else compile
        self._stepper = Stepper(model, compile, graphs_for(self.device), self._attention)
        if on_gpu or attention != "auto":
            print(f"elastic: rollouts: attention {self.attention}", file=sys.stderr)

    @property
    def attention(self) -> str:
        """Which attention rows decode with, and why: "flash (FlashAttention 3 is installed)", say."""
        return f"{self._attention.kind} ({self._attention.reason})"

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        budget: Budget | Sequence[Budget] | None = None,
        samples_per_prompt: int = 1,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        on_token: OnToken | None = None,
        add_special_tokens: bool | None = None,
        phase: PhaseName | Sequence[PhaseName | None] | None = None,
        thinking_used: int | Sequence[int] | Tensor | None = None,
    ) -> RolloutBatch:
        """Completes every prompt `samples_per_prompt` times.

        Rows are numbered prompt by prompt: row = prompt * samples_per_prompt + sample. What a row emits
        depends on its prompt, budget and seed, not on the other rows, max_rows or the order (SPEC R15), as
        far as the model's logits do not: matrix products round differently for other batch sizes.

        Args:
            prompts: texts, tokenised as they stand unless `add_special_tokens` says otherwise, or lists of
                token ids.
            budget: one for all, one a prompt, or one a row; None is `Budget.unlimited()`.
            samples_per_prompt: completions of each prompt; its prefill is shared.
            sampling: how tokens are drawn; `Sampling()` by default, which draws a seed for this call. The
                batch records it as `run_seed`; with `Sampling(seed=...)` of it the call can be repeated.
            max_new_tokens: ends rows without a bounded budget, finish reason LENGTH; by default the context
                does. An error where a bounded budget may need more: it would cut forced texts.
            seeds: [R] a seed for each row, instead of those derived from `sampling.seed` and the row.
            progress: overrides the engine's.
            on_token: called as on_token(row, token, phase, source) for every token as it is emitted. It may
                return "end_thinking": the row's thinking ends with the next token (R22).
            add_special_tokens: overrides the engine's.
            phase: where the rows start (R19): "opening" (they may open thinking themselves), "thinking" (the
                prompt ends inside a thought) or "solution"; one for all, or one a prompt. None reads it from
                the prompt's end (R9), or from the assistant's message that a `ChatPrompt` goes on with.
            thinking_used: thinking tokens that count from the start, in the prompt or elsewhere; one for all,
                or one a prompt. Needs prompts that have begun to think.

        Returns:
            RolloutBatch on the engine's device, rows in order of submission.

        Raises:
            TypeError, ValueError: bad arguments, before anything is computed. `OutOfContext`, a ValueError,
                where a prompt or its budget does not fit the model's context.
            MemoryError: the KV cache does not fit; names the max_rows that would. It comes before anything is
                computed, unless rows without a bounded budget made the cache grow.
            RuntimeError: the logits of a row hold NaN; names row and prompt.
        """
        special = self.add_special_tokens if add_special_tokens is None else add_special_tokens
        plan = make_plan(
            prompts,
            budget,
            samples_per_prompt,
            Sampling() if sampling is None else sampling,
            max_new_tokens,
            seeds,
            tokenizer=self.tokenizer,
            markers=self.markers,
            limits=self.limits,
            add_special_tokens=special,
            phase=phase,
            thinking_used=thinking_used,
        )
        self._warn_of_prompts(prompts, plan, special)
        rows = len(plan.most)
        slots = min(self.max_rows, rows)
        shown = self.progress if progress is None else progress
        with serving(self.model):
            memory, pools = self._pooling.fitting(plan.needs, slots, self._stepper.held_bytes)
        with (
            serving(self.model),
            self._attention.stepping(self.model),
            self._stepper.lend() as stepper,
            stepper.no_gradients(),
            self._bar(rows, shown) as bar,
        ):
            decoder = Decoder(
                self.model,
                plan,
                plan.schedule(pools, self.refill_rows or -(-slots // 8), stepper.rows),
                self.limits,
                self.device,
                memory,
                stepper,
                Poll(1, False) if on_token else Poll(self.poll_every, self._lagged),
                on_token,
                bar,
                self._attention,
            )
            fields, state = decoder.run()
        batch = self._batch(plan, fields, state, decoder.ended_at)
        self._warn_of_thinking(batch, plan)
        return batch

    def kv_bytes(
        self,
        prompts: Sequence[str | Sequence[int]],
        budget: Budget | Sequence[Budget] | None = None,
        samples_per_prompt: int = 1,
        max_new_tokens: int | None = None,
    ) -> int:
        """Bytes of the KV cache that `generate` begins with for these arguments. Decodes nothing.

        Slots come in up to four lengths, by the budgets of the rows. Rows without a bounded budget begin with
        512 tokens of a completion, and those that need more double the cache they are in.

        Args:
            prompts, budget, samples_per_prompt, max_new_tokens: as for `generate`.

        Raises:
            TypeError, ValueError: as by `generate`.
        """
        plan = make_plan(
            prompts,
            budget,
            samples_per_prompt,
            Sampling(),
            max_new_tokens,
            None,
            tokenizer=self.tokenizer,
            markers=self.markers,
            limits=self.limits,
            add_special_tokens=self.add_special_tokens,
        )
        with serving(self.model):
            memory, pools = self._pooling.plan(plan.needs, min(self.max_rows, len(plan.most)))
        return memory.bytes(pools)

    def release(self) -> None:
        """Frees what is kept between calls on a GPU: KV cache, logits, CUDA graphs. A later call makes it."""
        self._stepper.release()

    def _warn_of_prompts(self, prompts: Sequence[Any], plan: Plan, special: bool | None) -> None:
        """Of starts once a call, of special tokens once an engine: a training run has thousands of calls."""
        ambiguous = ambiguous_prompts(plan.prompts, plan.starts, self.markers)
        if ambiguous:
            warnings.warn(ambiguous, stacklevel=3)
        if len(self._said) == 2:
            return
        for kind, message in special_token_warnings(prompts, plan.prompts, self.tokenizer, special).items():
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(message, stacklevel=3)

    def _warn_of_thinking(self, batch: RolloutBatch, plan: Plan) -> None:
        budgets = [plan.machine.budgets[i] for i in plan.budget_index.tolist()]
        message = never_thought(batch, plan.starts, budgets)
        if message:
            warnings.warn(message, stacklevel=3)

    def _bar(self, rows: int, shown: bool | None) -> tqdm:
        hidden = not sys.stderr.isatty() if shown is None else not shown
        return tqdm(
            total=rows, desc="rollout", unit="row", disable=hidden, delay=0 if shown else _BAR_DELAY_S
        )

    def _batch(self, plan: Plan, fields: list[Tensor], state: Tensor, ended_at: list[int]) -> RolloutBatch:
        # Copies made out here are ordinary tensors, which autograd takes.
        tokens, source, phase, logprobs, full_logprobs = (field.clone() for field in fields)
        state = state.clone()
        reason = ops.finish_reason(state)
        reason = reason.masked_fill(reason == FinishReason.RUNNING, int(FinishReason.LENGTH))
        return RolloutBatch(
            tokens=tokens,
            source=source,
            phase=phase,
            logprobs=logprobs,
            full_logprobs=full_logprobs,
            lengths=(source != Source.PAD).sum(dim=1),
            thinking_tokens=ops.thinking_used(state).long(),
            solution_tokens=ops.solution_used(state).long(),
            thinking_cut=ops.thinking_cut(state),
            finish_reason=reason.to(torch.uint8),
            initial_phase=plan.phases.to(self.device, torch.uint8),
            initial_thinking=plan.thinking_used.to(self.device),
            ended_at=torch.tensor(ended_at, dtype=torch.int64, device=self.device),
            seeds=torch.tensor(plan.seeds, device=self.device),
            prompt_index=torch.tensor(plan.prompt_index, device=self.device),
            prompts=plan.prompts,
            markers=self.markers,
            eos_ids=self.limits.eos_ids,
            pad_id=self.limits.pad_id,
            run_seed=plan.run_seed,
            tokenizer=self.tokenizer,
        )
