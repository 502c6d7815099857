"""A training step's forward and backward through a whole model: K prompts with G completions each.

The model has random weights; prompts of 128 tokens, completions of 15-118. Eager pads on the right, takes the
logits of every completion position and the lean loss of `bench.ops.inputs`. The optimizer's step, the same
for all, is left out. Items are completion tokens.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.harness import random_models
from bench.harness.case import Case, Variant
from bench.harness.device import Device
from bench.ops.inputs import Inputs, clipped_loss, eager_logprobs
from bench.ops.linear_grpo_loss import TRL_CHUNK
from elastic import ops
from elastic.train.update.attention import tree_attention_of
from elastic.train.update.packing import pack, packed_logits

PROMPT, SHORTEST, LONGEST = 128, 15, 118
LIMIT = 1e-3  # relative error of the parameters' gradient in norm, float32


@dataclass
class Step:
    """A model and a batch.

    Attributes:
        prompts: K lists of token ids. completions: K G tensors [n].
        ids, mask: [K G, T], right-padded rows of prompt and completion; mask is True at completion tokens.
        batch: targets, old logprobs and weights of the packed completion tokens.
    """

    model: Any
    prompts: list[list[int]]
    prompt_of: list[int]
    completions: list[Tensor]
    ids: Tensor
    mask: Tensor
    batch: Inputs

    @classmethod
    def random(cls, device: Device, prompts: int, group: int, size: str) -> "Step":
        model = random_models.build(size).to(device.torch)
        vocab = model.config.vocab_size
        rng = random.Random(1)
        questions = [[rng.randrange(vocab) for _ in range(PROMPT)] for _ in range(prompts)]
        prompt_of = [row // group for row in range(prompts * group)]
        answers = [torch.randint(vocab, (rng.randint(SHORTEST, LONGEST),)) for _ in prompt_of]
        ids = torch.zeros(len(answers), PROMPT + LONGEST, dtype=torch.int64)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, answer in enumerate(answers):
            ids[row, :PROMPT] = torch.tensor(questions[prompt_of[row]])
            ids[row, PROMPT : PROMPT + len(answer)] = answer
            mask[row, PROMPT : PROMPT + len(answer)] = True
        ids, mask = ids.to(device.torch), mask.to(device.torch)
        packed = pack(questions, answers, prompt_of, device.torch)
        lengths = packed.row_offsets.diff()
        advantages = torch.randn(len(answers), device=device.torch)
        old = torch.randn(packed.tokens, device=device.torch).mul_(0.1).sub_(torch.tensor(float(vocab)).log())
        batch = Inputs(
            old.new_empty(0, vocab),
            packed.targets,
            old,
            packed.row_offsets,
            advantages,
            advantages.repeat_interleave(lengths),
            (1 / (lengths * len(answers))).float().repeat_interleave(lengths),
        )
        return cls(model, questions, prompt_of, answers, ids, mask, batch)

    def loss_of(self, logprobs: Tensor) -> Tensor:
        return clipped_loss(logprobs, self.batch.old_logprobs, self.batch.advantage, self.batch.weight)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(self.model.parameters())))

    def padded(self) -> list[Tensor]:
        """Padded rows, all their completions' logits at once."""
        logits = self.model(self.ids, use_cache=False, logits_to_keep=LONGEST + 1).logits[:, :-1]
        kept = self.mask[:, PROMPT:]
        logprobs, _ = eager_logprobs(logits.flatten(0, 1), self.ids[:, PROMPT:].flatten())
        return self.gradients(self.loss_of(logprobs.view(kept.shape)[kept]))

    def packed(self) -> list[Tensor]:
        """Prompts once, completions packed, the fused loss in place."""
        packed = pack(self.prompts, self.completions, self.prompt_of, self.ids.device)
        batch = self.batch
        with tree_attention_of(self.model):
            logits = packed_logits(self.model, packed)
            rest = (packed.targets, batch.old_logprobs, packed.row_offsets, batch.advantages)
            return self.gradients(ops.grpo_loss(logits, *rest, inplace=True).loss)

    def chunked_head(self) -> Callable[[], list[Tensor]]:
        """Padded rows through TRL's chunked logprob head."""
        from trl.kernels import ChunkedLogProbFunction

        def step() -> list[Tensor]:
            hidden = self.model.model(self.ids, use_cache=False).last_hidden_state[:, :-1][self.mask[:, 1:]]
            weight = self.model.lm_head.weight
            rest = (None, self.batch.targets, 1.0, TRL_CHUNK, None, 1.0, ())
            return self.gradients(self.loss_of(ChunkedLogProbFunction.apply(hidden, weight, *rest)[0]))

        return step


def case(device: Device, prompts: int, group: int, size: str) -> Case:
    step = Step.random(device, prompts, group, size)
    expected: list[Tensor] = []

    def check(gradients: list[Tensor]) -> None:
        if not expected:
            expected.extend(step.padded())
        error = sum((a - b).norm() ** 2 for a, b in zip(gradients, expected, strict=True))
        error = (error / sum(b.norm() ** 2 for b in expected)).sqrt().item()
        assert error < LIMIT, f"gradient off by {error:.1e}, expected less than {LIMIT:.0e}"

    def call(function: Callable[[], list[Tensor]]) -> Callable[[int], list[Tensor]]:
        return lambda _: function()

    variants = [
        Variant("eager", lambda: call(step.padded), check),
        Variant("TRL chunked head", lambda: call(step.chunked_head()), check, needs=("trl",)),
        Variant("elastic", lambda: call(step.packed), check),
    ]
    config = step.model.config
    shape = f"K={prompts} G={group} H={config.hidden_size} V={config.vocab_size}"
    return Case("training_step", shape, "float32", variants, items=len(step.batch.targets))
