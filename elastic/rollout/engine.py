"""RolloutEngine: completions of many prompts under budgets, by the own forward of a Hugging Face model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.budget import Budget
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.models.serving import serving
from elastic.rollout.attention.slot_attention import candidates
from elastic.rollout.cache.pooling import Pooling
from elastic.rollout.call import Call, progress_bar
from elastic.rollout.on_token import OnToken, report
from elastic.rollout.plan.default_markers import default_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import OverContext, Plan, make_plan
from elastic.rollout.plan.prompt_warnings import PromptWarnings
from elastic.rollout.plan.starts import PhaseName
from elastic.rollout.proof import prove_decoding
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.servable import check_servable
from elastic.rollout.step.compiled import MODES
from elastic.rollout.step.graphs import graphs_for
from elastic.rollout.step.poll import Poll
from elastic.rollout.step.stepper import Stepper
from elastic.rollout.stream import Stream
from elastic.rollout.watch import Watch
from elastic.sampling import Sampling

_POLL_STEPS_ON_GPU = 8


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
            GPU, once the steps taken in a shape, with those of the call ahead, pay for it (`PAYS_STEPS` of
            `elastic.rollout.step.compiled`). Where it fails, that is said, and steps go on without.

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
        check_servable(model)
        self.model, self.tokenizer = model, tokenizer
        self.markers = default_markers(tokenizer) if markers is None else markers
        self.max_rows, self.refill_rows, self.progress = max_rows, refill_rows, progress
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self.limits = model_limits(model, tokenizer, self.markers, eos_ids, max_length)
        on_gpu = self.device.type != "cpu"
        self.poll_every = poll_every or (_POLL_STEPS_ON_GPU if on_gpu else 1)
        self._lagged = on_gpu
        self.add_special_tokens = add_special_tokens
        self._warnings = PromptWarnings(tokenizer, self.markers)
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
        sampling: Sampling | Sequence[Sampling] | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        on_token: OnToken | None = None,
        add_special_tokens: bool | None = None,
        phase: PhaseName | Sequence[PhaseName | None] | None = None,
        thinking_used: int | Sequence[int] | Tensor | None = None,
        stop: str | Sequence[str] | None = None,
        over_context: OverContext = "raise",
    ) -> RolloutBatch:
        """Completes every prompt `samples_per_prompt` times.

        Rows are numbered prompt by prompt: row = prompt * samples_per_prompt + sample. What a row emits
        depends on its prompt, budget and seed, not on the other rows, max_rows or the order (SPEC R15), as
        far as the model's logits do not: matrix products round differently for other batch sizes.

        Args:
            prompts: texts, tokenised as they stand unless `add_special_tokens` says otherwise, or lists of
                token ids.
            budget: one for all, one per prompt, or one per row; None is `Budget.unlimited()`.
            samples_per_prompt: completions of each prompt; its prefill is shared.
            sampling: how tokens are drawn, for all, one per prompt, or one per row; `Sampling()` by default.
                A row's seed derives from its own sampling's seed and its number; without one, from a seed
                drawn for this call. The batch records the seed of all rows as `run_seed`; with
                `Sampling(seed=...)` of it the call can be repeated.
            max_new_tokens: ends rows without a bounded budget, finish reason LENGTH; by default the context
                does. An error where a bounded budget may need more: it would cut forced texts.
            seeds: [R] a seed for each row, instead of those derived from `sampling.seed` and the row.
            progress: overrides the engine's.
            on_token: called as on_token(row, token, phase, source) for every token as it is emitted. It may
                return "end_thinking": the row's thinking ends with the next token (R22).
            add_special_tokens: overrides the engine's.
            phase: where the rows start (R19): "opening" (they may open thinking themselves), "thinking" (the
                prompt ends inside a thought) or "solution"; for all, or one per prompt. None reads it from
                the prompt's end (R9), or from the assistant's message that a `ChatPrompt` goes on with.
            thinking_used: thinking tokens that count from the start, in the prompt or elsewhere; one for all,
                or one per prompt. Needs prompts that have begun to think.
            stop: strings that end a row, finish reason STOP, once it has written one in its solution, also
                across tokens. Thoughts and forced texts are not searched. The record has the tokens up to
                the one that completes the string; `text` and `solution` end in front of it. Special tokens
                count as their text. On a GPU looked for every few steps, which changes no result.
            over_context: what to do with prompts that, with their budget, do not fit the context: "raise", or
                "drop": they have no rows, `RolloutBatch.dropped` says why, the others keep their number in
                `prompts` and their seeds.

        Returns:
            RolloutBatch on the engine's device, rows in order of submission.

        Raises:
            TypeError, ValueError: bad arguments, before anything is computed. `OutOfContext`, a ValueError,
                where a prompt or its budget does not fit the model's context, or no prompt does.
            MemoryError: the KV cache does not fit; names the max_rows that would. It comes before anything is
                computed, unless rows without a bounded budget made the cache grow.
            RuntimeError: the logits of a row hold NaN; names row and prompt.
        """
        plan = self._plan(
            *(prompts, add_special_tokens, budget, samples_per_prompt, sampling, max_new_tokens, seeds),
            phase=phase,
            thinking_used=thinking_used,
            stop=stop,
            over_context=over_context,
        )
        with self.begin(plan, progress, followed=on_token is not None, texts=bool(plan.stop)) as stream:
            while (step := stream.advance()) is not None:
                if on_token is not None:
                    report(step, on_token, stream)
        message = stream.remark()
        if message:
            warnings.warn(message, stacklevel=2)
        return stream.batch

    def stream(
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
        stop: str | Sequence[str] | None = None,
        over_context: OverContext = "raise",
    ) -> Stream:
        """What `generate` does, followed: tokens as they come, rows that can be ended from outside.

            with engine.stream(prompts, Budget(512, 256)) as stream:
                for event in stream:
                    if isinstance(event, Token):
                        print(event.text, end="")
                    else:
                        print(event.record.solution(0))
            batch = stream.batch

        Arguments and errors are those of `generate`, and so are the tokens of the rows. With `max_rows=1`
        rows come one after the other, in order of submission. The stream is used in a `with`, or an
        `async with`.
        """
        plan = self._plan(
            *(prompts, add_special_tokens, budget, samples_per_prompt, sampling, max_new_tokens, seeds),
            phase=phase,
            thinking_used=thinking_used,
            stop=stop,
            over_context=over_context,
        )
        return self.begin(plan, progress, followed=True, texts=True)

    def _plan(self, prompts: Any, add_special_tokens: bool | None, *arguments: Any, **named: Any) -> Plan:
        """`make_plan` for this engine, and what there is to say of the prompts."""
        special = self.add_special_tokens if add_special_tokens is None else add_special_tokens
        plan = make_plan(
            *(prompts, *arguments),
            tokenizer=self.tokenizer,
            markers=self.markers,
            limits=self.limits,
            add_special_tokens=special,
            **named,
        )
        self._warnings.say(prompts, plan, special)
        return plan

    def begin(self, plan: Plan, progress: bool | None, followed: bool = False, texts: bool = False) -> Stream:
        """A call that has not begun.

        Args:
            followed: whether somebody reads the tokens, which takes a look at every step.
            texts: whether tokens are read as text.
        """
        rows = len(plan.most)
        slots = min(self.max_rows, rows)
        poll = Poll(1, False) if followed else Poll(self.poll_every, self._lagged)
        watch = None
        if followed or texts:
            tokenizer = self.tokenizer if texts else None
            watch = Watch(tokenizer, plan.stop, self.limits.eos_ids, poll.lagged)
        shown = self.progress if progress is None else progress
        call = Call(
            *(self.model, self.tokenizer, self.markers, self.limits, self.device),
            *(self._attention, self._pooling, self._stepper),
            plan=plan,
            slots=slots,
            refill=self.refill_rows or -(-slots // 8),
            poll=poll,
            watch=watch,
            bar=lambda: progress_bar(rows, shown),
        )
        return Stream(call)

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
            *(prompts, budget, samples_per_prompt, None, max_new_tokens, None),
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
