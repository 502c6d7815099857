"""What a run takes of its device's memory, item by item."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from elastic.models.modes import recompute_activations
from elastic.models.offload import Offload
from elastic.models.serving import serving
from elastic.rollout.attention.slot_attention import candidates
from elastic.rollout.cache.memory import KVMemory, column_bytes, free_bytes
from elastic.rollout.step.step import kept_set_bytes
from elastic.rollout.step.stepper import KEPT_SHARE
from elastic.train.config import TrainConfig
from elastic.train.planning.optimizer_memory import update_bytes
from elastic.train.planning.outline import Outline, tensor_bytes
from elastic.train.planning.update_memory import Body, activation_bytes, loss_bytes
from elastic.train.planning.work import Call, Work
from elastic.train.update.parameter_groups import freeze


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Attributes:
        weights: of the trained model, buffers included.
        gradients: of its trained parameters; float32 where these have 16 bits.
        optimizer: its state, with the float32 masters of 16-bit weights.
        reference: the frozen starting model; 0 without a KL and with a new adapter, and of an adapter that
            was trained before its starting values.
        rollout_copy: what the model that rollouts run on does not share with the trained one: a 16-bit copy
            in mixed precision, merged weights with ``adapter.rollouts``; else 0.
        kv_cache: of the rollouts of a step, as they begin.
        kv_cache_evaluation: of the widest evaluation, as it begins; 0 without evaluations.
        kv_cache_most: where rows without a bounded budget grow, the most of either; else 0.
        decode_logits: of a decode step, float32.
        kept_sets: of the steps' log, where sampling filters leave kept sets.
        micro_batch_tokens: the most packed tokens of a forward of an update.
        activations: the most of forward and backward over them, without the head; None where the model's
            attention takes no packed rows, which are then padded.
        saved: what of them the forward leaves for the backward, beside which the loss is computed.
        loss: logits and gradients of the head and the loss.
        on_host: activations in the host's memory, where they are offloaded.
        kept: buffers of rollouts that a GPU keeps during updates.
        free: of the device now; None where it does not tell.
    """

    weights: int
    gradients: int
    optimizer: int
    reference: int
    rollout_copy: int
    kv_cache: int
    kv_cache_evaluation: int
    kv_cache_most: int
    decode_logits: int
    kept_sets: int
    micro_batch_tokens: int
    activations: int | None
    saved: int
    loss: int
    on_host: int
    kept: int
    free: int | None

    @property
    def held(self) -> int:
        """What is there from the first update on, in rollouts and updates."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.rollout_copy

    @property
    def rollouts(self) -> int:
        """The most during rollouts and evaluations as they begin."""
        caches = max(self.kv_cache, self.kv_cache_evaluation)
        return self.held + caches + self.decode_logits + self.kept_sets

    @property
    def updates(self) -> int:
        """The most during updates; without the activations where they are not known."""
        return self.held + max(self.activations or 0, self.saved + self.loss) + self.kept

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self.rollouts, self.updates)


def memory_of(config: TrainConfig, outline: Outline, work: Work) -> Memory:
    """Finds out what a run takes; `Memory` says of what.

    Raises:
        ValueError: the attention that the configuration names cannot be used.
    """
    model, mixed = outline.model, config.train.mixed_precision != "no"
    head = model.get_output_embeddings().weight
    vocab, hidden = head.shape
    weights = tensor_bytes(*model.parameters(), *model.buffers())
    calls, caches = (work.step, *work.evaluation), _Caches(config, outline)
    most = [caches.bytes(call, grown=True) for call in calls]
    begins = [caches.bytes(call) for call in calls]
    logits = max(caches.slots(call) for call in calls) * vocab * 4
    kept_sets = kept_set_bytes(caches.slots(work.step), config.sampling.recorded)
    tokens = micro_batch_tokens(config, work)
    with outline.on_cpu() as running:
        freeze(running, config.optim)
        gradients, optimizer = update_bytes(running, config.optim)
        offload = Offload() if config.model.offload_activations else None
        if config.model.gradient_checkpointing:
            recompute_activations(running, offload)
        prompt = max(work.longest_prompt, 1)
        body = _body(running, tokens, prompt, work.row_tokens, mixed, offload)
    width = 2 if mixed else next(model.parameters()).element_size()
    memory = Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        reference=_reference_bytes(outline, weights, gradients) if config.loss.kl_coef > 0 else 0,
        rollout_copy=_own_bytes(outline.rollout_model, model),
        kv_cache=begins[0],
        kv_cache_evaluation=max(begins[1:], default=0),
        kv_cache_most=max(most) if most != begins else 0,
        decode_logits=logits,
        kept_sets=kept_sets,
        micro_batch_tokens=tokens,
        activations=None if body is None else body.most,
        saved=0 if body is None else body.saved,
        loss=loss_bytes(config.loss, tokens, vocab, hidden, width, head.requires_grad, mixed),
        on_host=0 if body is None else body.host,
        kept=_kept(max(begins) + logits + kept_sets, outline.device),
        free=free_bytes(outline.device),
    )
    return memory if config.rollout.engine == "own" else replace(memory, **_of_vllm(config, outline.device))


def _reference_bytes(outline: Outline, weights: int, gradients: int) -> int:
    """Of a new adapter none; of a trained one its starting values, as many bytes as its gradients."""
    if outline.starts_from_base:
        return 0
    return gradients if outline.has_adapter else weights


def _of_vllm(config: TrainConfig, device: torch.device) -> dict[str, int]:
    """What differs where vLLM decodes: it has a share of a GPU for all that it needs, also during updates."""
    on_gpu = device.type == "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if on_gpu else 0
    share = int(config.rollout.vllm_memory * total)
    others = ("kv_cache_evaluation", "kv_cache_most", "decode_logits", "kept_sets")
    none = dict.fromkeys(others, 0)  # it logs no steps: kept sets go to the host with each draw
    return {**none, "kv_cache": share, "kept": share}


def _own_bytes(copy: Any, model: Any) -> int:
    """Of what a copy does not share with the model."""
    shared = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    own = [tensor for tensor in (*copy.parameters(), *copy.buffers()) if id(tensor) not in shared]
    return tensor_bytes(*own)


class _Caches:
    """The KV caches of calls, by the engine's own formula."""

    def __init__(self, config: TrainConfig, outline: Outline) -> None:
        model, meta = outline.rollout_model, torch.device("meta")
        self._max_rows = config.rollout.max_rows
        with serving(model):
            columns = column_bytes(model, meta)
        # The engine proves its choice on the weights; here the first candidate stands for it.
        several = candidates(model, config.rollout.attention, outline.device)[0].backend != "mask"
        self._memory = KVMemory(columns, meta, several)

    def slots(self, call: Call) -> int:
        """Rows decoded together."""
        return min(self._max_rows, len(call.most))

    def bytes(self, call: Call, grown: bool = False) -> int:
        """Of the cache that the call begins with, or of the same with all its rows at their longest."""
        needs = call.needs.grown(max(call.needs.most_columns)) if grown else call.needs
        return self._memory.bytes(self._memory.pools(needs, self.slots(call)))


def micro_batch_tokens(config: TrainConfig, work: Work) -> int:
    """The most packed tokens of one forward of an update: rows, and the prompt of each group once."""
    loop, rollout = config.train, config.rollout
    row, prompt = work.row_tokens, work.longest_prompt
    groups = -(-rollout.prompts_per_step // loop.minibatches)
    minibatch = groups * (prompt + rollout.samples_per_prompt * row)
    # Parts are of near equal size: whole rows, each with its prompt where its group is cut.
    part = -(-minibatch // loop.accumulation_steps) + (prompt + row if loop.accumulation_steps > 1 else 0)
    if loop.micro_batch_tokens:
        part = min(part, max(loop.micro_batch_tokens, prompt + row))
    return min(part, minibatch)


def _body(*arguments: Any) -> Body | None:
    try:
        return activation_bytes(*arguments)
    except ValueError:  # of the packed attention, about its layers
        return None


def _kept(buffers: int, device: torch.device) -> int:
    """What stays of a call's buffers between calls."""
    if device.type != "cuda":
        return 0
    return buffers if buffers * KEPT_SHARE <= torch.cuda.get_device_properties(device).total_memory else 0
