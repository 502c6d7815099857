"""A training step's forward and backward through a whole model: K prompts with G completions each.

The model has random weights. Eager pads on the right, takes the logits of every completion position and the
lean loss of `bench.ops.inputs`. The optimizer's step, the same for all, is left out. Items are its tokens.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.harness import random_models
from bench.harness.case import Case, Variant, name_of
from bench.harness.device import Device
from bench.ops.inputs import Inputs, assert_near, clipped_loss, eager_logprobs
from bench.ops.linear_rivals import TRL_CHUNK
from elastic import ops
from elastic.models.head import LinearHead
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_hidden, packed_logits

# Relative error of the parameters' gradient in norm. What is rounded to bfloat16 in every layer adds up.
LIMIT = {torch.float32: 1e-3, torch.bfloat16: 0.2}
LOSS_LIMIT = 1e-2
# Of the padded logits, with all that eager makes of them and the activations: 47 were measured on an H200.
EAGER_BYTES_PER_LOGIT = 48
LINEAR = "elastic, linear_grpo_loss"
Gradients = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class Lengths:
    """Tokens of every prompt, and of the shortest and the longest completion."""

    prompt: int = 128
    shortest: int = 15
    longest: int = 118


@dataclass
class Step:
    """A model and a batch.

    Attributes:
        prompts: K lists of token ids. completions: K G tensors [n].
        ids, mask: [K G, T], right-padded rows of prompt and completion; mask is True at completion tokens.
        batch: targets, old logprobs and weights of the packed completion tokens.
    """

    model: Any
    lengths: Lengths
    prompts: list[list[int]]
    prompt_of: list[int]
    completions: list[Tensor]
    ids: Tensor
    mask: Tensor
    batch: Inputs

    @classmethod
    def random(
        cls, device: Device, prompts: int, group: int, size: str, dtype: torch.dtype, lengths: Lengths
    ) -> "Step":
        model = random_models.build(size, device.torch, dtype)
        vocab, prompt = model.config.vocab_size, lengths.prompt
        rng = random.Random(1)
        questions = [[rng.randrange(vocab) for _ in range(prompt)] for _ in range(prompts)]
        prompt_of = [row // group for row in range(prompts * group)]
        answers = [torch.randint(vocab, (rng.randint(lengths.shortest, lengths.longest),)) for _ in prompt_of]
        ids = torch.zeros(len(answers), prompt + lengths.longest, dtype=torch.int64)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, answer in enumerate(answers):
            ids[row, :prompt] = torch.tensor(questions[prompt_of[row]])
            ids[row, prompt : prompt + len(answer)] = answer
            mask[row, prompt : prompt + len(answer)] = True
        ids, mask = ids.to(device.torch), mask.to(device.torch)
        packed = pack(questions, answers, prompt_of, device.torch)
        tokens = packed.row_offsets.diff()
        advantages = torch.randn(len(answers), device=device.torch)
        old = torch.randn(packed.tokens, device=device.torch).mul_(0.1).sub_(torch.tensor(float(vocab)).log())
        batch = Inputs(
            old.new_empty(0, vocab),
            packed.targets,
            old,
            packed.row_offsets,
            advantages,
            advantages.repeat_interleave(tokens),
            (1 / (tokens * len(answers))).float().repeat_interleave(tokens),
        )
        return cls(model, lengths, questions, prompt_of, answers, ids, mask, batch)

    def loss_of(self, logprobs: Tensor) -> Tensor:
        return clipped_loss(logprobs, self.batch.old_logprobs, self.batch.advantage, self.batch.weight)

    def gradients(self, loss: Tensor) -> Gradients:
        """The loss, and the gradients of the model's parameters."""
        return loss.detach(), list(torch.autograd.grad(loss, list(self.model.parameters())))

    def padded(self) -> Gradients:
        """Padded rows, all their completions' logits at once."""
        prompt = self.lengths.prompt
        keep = self.lengths.longest + 1
        logits = self.model(self.ids, use_cache=False, logits_to_keep=keep).logits[:, :-1]
        kept = self.mask[:, prompt:]
        logprobs, _ = eager_logprobs(logits.flatten(0, 1), self.ids[:, prompt:].flatten())
        return self.gradients(self.loss_of(logprobs.view(kept.shape)[kept]))

    def packed(self) -> Gradients:
        """Prompts once, completions packed, the fused loss in place."""
        packed = pack(self.prompts, self.completions, self.prompt_of, self.ids.device)
        batch = self.batch
        with tree_attention_of(self.model):
            logits = packed_logits(self.model, packed)
            rest = (packed.targets, batch.old_logprobs, packed.row_offsets, batch.advantages)
            return self.gradients(ops.grpo_loss(logits, *rest, inplace=True).loss)

    def linear(self) -> Callable[[], Gradients]:
        """The same from hidden states and the head, whose logits are made a chunk at a time."""
        head = LinearHead.of(self.model, required="the benchmark")
        assert head is not None

        def step() -> Gradients:
            packed = pack(self.prompts, self.completions, self.prompt_of, self.ids.device)
            batch = self.batch
            with tree_attention_of(self.model):
                hidden = packed_hidden(self.model, head, packed)
                rest = (packed.targets, batch.old_logprobs, packed.row_offsets, batch.advantages)
                return self.gradients(ops.linear_grpo_loss(hidden, head.linear.weight, *rest).loss)

        return step

    def chunked_head(self) -> Callable[[], Gradients]:
        """Padded rows through TRL's chunked logprob head."""
        from trl.kernels import ChunkedLogProbFunction

        def step() -> Gradients:
            hidden = self.model.model(self.ids, use_cache=False).last_hidden_state[:, :-1][self.mask[:, 1:]]
            weight = self.model.lm_head.weight
            rest = (None, self.batch.targets, 1.0, TRL_CHUNK, None, 1.0, ())
            return self.gradients(self.loss_of(ChunkedLogProbFunction.apply(hidden, weight, *rest)[0]))

        return step


def case(
    device: Device,
    prompts: int,
    group: int,
    size: str,
    dtype: torch.dtype = torch.float32,
    lengths: Lengths | None = None,
) -> Case:
    """Args:
    size: of `random_models`.
    lengths: of prompts and completions, by default short ones.
    """
    step = Step.random(device, prompts, group, size, dtype, lengths or Lengths())
    right = Agreement()
    room = no_room(device, step)

    def call(function: Callable[[], Gradients]) -> Callable[[int], Gradients]:
        return lambda _: function()

    variants = [
        Variant("eager", lambda: call(step.padded), right.check, skip=room),
        Variant("TRL chunked head", lambda: call(step.chunked_head()), right.check, needs=("trl",)),
        Variant("elastic", lambda: call(step.packed), right.check),
        Variant(LINEAR, lambda: call(step.linear()), right.check),
    ]
    config = step.model.config
    shape = f"K={prompts} G={group} H={config.hidden_size} V={config.vocab_size}"
    if lengths is not None:
        spread = f"{lengths.shortest}-{lengths.longest}"
        shape = f"{size} K={prompts} G={group} prompt={lengths.prompt} completions={spread}"
    return Case("training_step", shape, name_of(dtype), variants, items=len(step.batch.targets))


class Agreement:
    """Ways of a step give one loss and one gradient: those of the first that is checked."""

    def __init__(self) -> None:
        self.first: Gradients | None = None

    def check(self, result: Gradients) -> None:
        """Raises:
        AssertionError: a value that is not finite, or another one than the first way's.
        """
        self.first = self.first or result
        (loss, gradients), (expected_loss, expected) = result, self.first
        # NaN is not less than any limit.
        assert_near("loss", loss, expected_loss.double(), LOSS_LIMIT)
        error = norm([a - b for a, b in zip(gradients, expected, strict=True)]) / norm(expected)
        limit = LIMIT[expected[0].dtype]
        assert error < limit, f"gradient off by {error:.1e}, expected less than {limit:.0e}"


def norm(tensors: Sequence[Tensor]) -> float:
    return torch.stack([tensor.float().norm() for tensor in tensors]).norm().item()


def no_room(device: Device, step: Step) -> str:
    """Why the padded logits do not fit on the device; empty where they do, or where the system swaps."""
    if not device.is_cuda:
        return ""
    free = torch.cuda.mem_get_info(device.torch)[0]
    positions = len(step.ids) * (step.lengths.longest + 1)
    needed = positions * step.model.config.vocab_size * EAGER_BYTES_PER_LOGIT
    return "" if needed < free else f"takes about {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
