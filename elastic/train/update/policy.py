"""The gradient of one minibatch, in as many forward passes as memory asks for.

Every micro-batch is divided by the whole minibatch's counts (over processes too), never by its own, and
the gradients are summed. So 8 micro-batches of one row give the gradient of 1 micro-batch of eight.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor, nn

from elastic import ops
from elastic.models.head import LinearHead
from elastic.models.modes import as_in_rollouts
from elastic.models.sharding import gathered
from elastic.models.threads import threads_for
from elastic.ops.grpo_options import GrpoOptions
from elastic.train.collect.experience import Experience
from elastic.train.config.no_effect import effective
from elastic.train.config.updates import LossConfig
from elastic.train.update import deepspeed
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import PackedBatch, pack, packed_hidden, packed_logits
from elastic.train.update.ratios import mismatch_sums, ratio_sums
from elastic.train.update.stats import UpdateStats
from elastic.train.update.transfer import to_device
from elastic.train.update.varlen import VarlenKernel

# Settings that are passed to the losses under the same name; not those of advantages, which are computed
# before, nor `skip_zero_advantage`, whose rows are left out before.
LOSS_OPTIONS = tuple(
    item.name
    for item in fields(LossConfig)
    if item.name in GrpoOptions.__annotations__
    and item.name not in ("advantage", "advantage_eps", "pass_k", "skip_zero_advantage")
)
# Where more of the tokens carry loss, a GPU computes with all.
_MOST_LEFT_IN = 0.75


class Policy:
    """The trained model with its loss, on packed rows.

    Args:
        model: the whole model; set the attribute `model` to what `accelerator.prepare` returns of it.
        accelerator: an `accelerate.Accelerator`.
        config: of the loss.
        temperature: of the sampling; logprobs are those of the policy at this temperature.
        max_length: dr_grpo's L_max.
        accumulation_steps: micro-batches per optimizer step.
        micro_batch_tokens: most packed tokens of a forward pass; 0 for no limit.
        kernel: attends by lengths; None for SDPA over padded buckets.
    """

    def __init__(
        self,
        model: nn.Module,
        accelerator: Any,
        config: LossConfig,
        *,
        temperature: float,
        max_length: int | None,
        accumulation_steps: int = 1,
        micro_batch_tokens: int = 0,
        kernel: VarlenKernel | None = None,
    ) -> None:
        self.model = model
        self._accelerator = accelerator
        self._config = config
        self._temperature = temperature
        self._max_length = max_length
        self._accumulation_steps = accumulation_steps
        self._micro_batch_tokens = micro_batch_tokens
        self._kernel = kernel
        self._head = self._head_of(model)
        sharding = (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self._sharded = accelerator.distributed_type in sharding  # gradients at least

    def logprobs(self, experience: Experience, model: nn.Module | None = None) -> list[Tensor]:
        """Logprobs of every row's tokens under the tempered policy, without gradient.

        Args:
            experience: any rows.
            model: another model (the reference), unprepared; None for the policy.
        """
        module = self.model if model is None else model
        head = self._head if model is None else self._head_of(model)
        found: list[Tensor] = []
        with torch.no_grad(), self._packed(module), self._accelerator.autocast():
            for part in self._split_together(experience):
                packed = self._pack(part)
                with threads_for(module, packed.input_ids.numel()):
                    kept = kept_sets(part, packed.targets.device)
                    values = self._packed_logprobs(module, head, packed, kept)
                found.append(values)
        lengths = experience.lengths
        return list(torch.cat(found)[: sum(lengths)].cpu().split(lengths))

    def _packed_logprobs(
        self, module: nn.Module, head: LinearHead | None, packed: PackedBatch, kept: dict[str, Any]
    ) -> Tensor:
        if head is None:
            logits = packed_logits(module, packed)
            if self._accelerator.mixed_precision != "no":
                logits = logits.float()  # as a prepared model's are, so that the reference is rounded alike
            return ops.token_logprobs(logits, packed.targets, self._temperature, **kept)[0]
        hidden = packed_hidden(module, head, packed)
        with gathered(head.linear):
            return ops.linear_token_logprobs(
                hidden, head.linear.weight, packed.targets, **self._head_options(head), **kept
            )[0]

    def _head_options(self, head: LinearHead) -> dict[str, Any]:
        return {
            "bias": head.linear.bias,
            "softcap": head.softcap,
            "temperature": self._temperature,
            "chunk_tokens": self._config.linear_chunk_tokens,
        }

    def _head_of(self, model: nn.Module) -> LinearHead | None:
        if self._config.linear == "off":
            return None
        required = "loss.linear: 'on'" if self._config.linear == "on" else ""
        with self._accelerator.autocast():  # as in updates: a prepared model's forward has it anyway
            head = LinearHead.of(self._accelerator.unwrap_model(model), required=required)
        if head is not None and self._config.linear == "auto":
            narrow = head.linear.out_features <= head.linear.in_features
            return None if narrow else head
        return head

    def rows_run(self, experience: Experience) -> list[int]:
        """The rows of a minibatch that `backward` runs through the model."""
        config = self._config
        if config.skip_zero_advantage and config.kl_coef == 0 and config.entropy_coef == 0:
            # One row stays. Without any, this process would have no gradient to average with the others', and
            # the optimizer would skip parameters without one, where a zero gradient still applies momentum.
            return experience.rows_with_gradient() or [0]
        return list(range(len(experience)))

    def backward(self, experience: Experience, num_tokens: int, num_rows: int, stats: UpdateStats) -> None:
        """Adds the gradient of a minibatch to the parameters' `.grad`.

        Args:
            experience: this process's rows of the minibatch.
            num_tokens: loss tokens of the minibatch, over all processes, before any row is skipped.
            num_rows: its rows, likewise.
            stats: gets this process's sums added.
        """
        config, experience = self._config, experience.select(self.rows_run(experience))
        parts = self._split_together(experience)
        world = self._accelerator.num_processes
        with self._packed(self.model):
            for index, part in enumerate(parts):
                last = index == len(parts) - 1
                with ExitStack() as stack:
                    if not (last or self._sharded):
                        stack.enter_context(self._accelerator.no_sync(self.model))
                    packed = self._pack(part)
                    with threads_for(self.model, packed.input_ids.numel()):
                        output = self._loss(packed, part, num_tokens, num_rows, stack)
                        # Data-parallel training averages gradients over processes; they must be summed.
                        self._add_gradient(output.loss * world if world > 1 else output.loss, last)
                tokens = part.loss_tokens
                stats.add(
                    loss=output.loss,
                    tokens=tokens,
                    entropy=output.entropy.sum(),
                    clipped=output.clip_fraction * tokens,
                    kl=output.kl * tokens,
                    **ratio_sums(output.logprobs, part, config),
                )
                if stats.updates == 0:
                    stats.add(**mismatch_sums(output.logprobs, part))

    def _add_gradient(self, loss: Tensor, last: bool) -> None:
        if deepspeed.is_engine(self.model):
            deepspeed.backward(self.model, loss, last)
        else:
            self._accelerator.backward(loss)

    def _split_together(self, experience: Experience) -> list[Experience]:
        """Micro-batches; of a sharded model as many as any process has, since all run each forward pass."""
        parts = experience.split(self._accumulation_steps, self._micro_batch_tokens)
        if self._sharded:
            count = torch.tensor([len(parts)], device=self._accelerator.device)
            most = int(self._accelerator.gather(count).max())
            parts += [experience.without_loss()] * (most - len(parts))
        return parts

    def _loss(
        self, packed: PackedBatch, part: Experience, num_tokens: int, num_rows: int, stack: ExitStack
    ) -> Any:
        """The loss of a micro-batch; `stack` is left behind its backward pass."""
        config, device = self._config, packed.targets.device

        def flat(rows: list[Tensor]) -> Tensor | None:
            return to_device(torch.cat(rows), device) if rows else None

        old = flat(part.old_logprobs)
        assert old is not None
        arguments = (packed.targets, old, packed.row_offsets, to_device(part.advantages, device))
        corrected = config.engine_correction != "none"
        options: dict[str, Any] = {
            **effective(config, *LOSS_OPTIONS),
            **kept_sets(part, device),
            "mask": flat(part.mask),
            "ref_logprobs": flat(part.ref_logprobs),
            "engine_logprobs": flat(part.rollout_logprobs) if corrected else None,
            "engine_mode": config.engine_correction if corrected else None,
            # The op's bnpo divides by the tokens of one call; divided by the minibatch's tokens it is dapo.
            "loss": "dapo" if config.loss == "bnpo" else config.loss,
            "num_tokens": num_tokens,
            "num_rows": num_rows,
            "max_length": self._max_length if config.loss == "dr_grpo" else None,
        }
        if self._head is None:
            logits = packed_logits(self.model, packed)
            return ops.grpo_loss(logits, *arguments, temperature=self._temperature, inplace=True, **options)
        hidden = packed_hidden(self.model, self._head, packed)
        stack.enter_context(gathered(self._head.linear))
        with self._accelerator.autocast():  # as for the model's own head
            weight = self._head.linear.weight
            options |= self._head_options(self._head) | {"gather": _leaves_out(part, device)}
            return ops.linear_grpo_loss(hidden, weight, *arguments, **options)

    def _pack(self, part: Experience) -> PackedBatch:
        return pack(part.prompts, part.completions, part.prompt_of, self._accelerator.device, self._kernel)

    @contextmanager
    def _packed(self, model: nn.Module) -> Iterator[None]:
        """A block in which the model takes packed batches and runs as in rollouts, without dropout."""
        inner = self._accelerator.unwrap_model(model)
        with tree_attention_of(inner), as_in_rollouts(inner):
            yield


def kept_sets(part: Experience, device: torch.device) -> dict[str, Any]:
    """The arguments `kept_ids` and `kept_offsets` of the ops; none where the rows have no kept sets."""
    if not part.kept_counts:
        return {}
    offsets = torch.nn.functional.pad(torch.cat(part.kept_counts).cumsum(0), (1, 0))
    return {
        "kept_ids": to_device(torch.cat(part.kept_ids), device),
        "kept_offsets": to_device(offsets, device),
    }


def _leaves_out(part: Experience, device: torch.device) -> bool:
    """Whether tokens without loss are left out of the head's products.

    On a GPU the host would have to wait for their number. For the forced tokens, a few in a row, that costs
    more than the products; where whole rows carry no loss it does not.
    """
    return device.type == "cpu" or part.loss_tokens < _MOST_LEFT_IN * sum(part.lengths)
