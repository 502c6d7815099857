"""`linear_grpo_loss` forward + backward against two other heads: `python -m bench.linear_grpo_loss`.

eager: logits of all tokens, log_softmax in float32, the clipped objective, autograd. checkpointed: the same a
chunk at a time under torch's checkpoint, as TRL's chunked head does: one chunk of logits in memory, four
products. materialised: the logits, then the fused `grpo_loss` in place. matrix products: the three of them
alone, in chunks, the floor.
"""

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import elastic.reference
from bench.compare import Variant, compare, ratios, table
from bench.grpo_loss import DTYPES, ROWS
from elastic.ops import grpo_loss, linear_grpo_loss


@dataclass
class Inputs:
    """hidden [N, H], weight [V, H], targets [N], old_logprobs [N], row_offsets [R + 1], advantages [R]."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    old_logprobs: Tensor
    row_offsets: Tensor
    advantages: Tensor

    @classmethod
    def random(cls, tokens: int, width: int, vocab: int, dtype: torch.dtype, seed: int) -> "Inputs":
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(tokens, width, generator=generator).to(dtype)
        weight = (torch.randn(vocab, width, generator=generator) * 3 / width**0.5).to(dtype)
        targets = torch.randint(vocab, (tokens,), generator=generator)
        rows = min(ROWS, tokens)
        offsets = torch.tensor([tokens * r // rows for r in range(rows + 1)])
        logprobs = elastic.reference.token_logprobs(linear(hidden, weight), targets)[0]
        old = logprobs + 0.1 * torch.randn(tokens, generator=generator)
        return cls(hidden, weight, targets, old, offsets, torch.randn(rows, generator=generator))

    def double(self) -> "Inputs":
        floats = {k: v.double() if v.is_floating_point() else v for k, v in vars(self).items()}
        return Inputs(**floats)

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return self.targets, self.old_logprobs, self.row_offsets, self.advantages


def objective(logits: Tensor, inputs: Inputs, tokens: slice) -> Tensor:
    """The clipped objective of some tokens, as `grpo_loss` has it by default."""
    lengths = inputs.row_offsets.diff()
    advantage = inputs.advantages.repeat_interleave(lengths)[tokens]
    scale = (1 / (lengths * len(lengths))).repeat_interleave(lengths)[tokens]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    logprobs = torch.log_softmax(logits, -1, dtype=dtype).gather(1, inputs.targets[tokens, None])[:, 0]
    ratio = torch.exp(logprobs - inputs.old_logprobs[tokens])
    return -(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * scale).sum()


def eager(hidden: Tensor, weight: Tensor, inputs: Inputs, _: int) -> Tensor:
    return objective(linear(hidden, weight), inputs, slice(None))


def checkpointed(hidden: Tensor, weight: Tensor, inputs: Inputs, chunk: int) -> Tensor:
    def part(x: Tensor, w: Tensor, tokens: slice) -> Tensor:
        return objective(linear(x, w), inputs, tokens)

    spans = [slice(first, first + chunk) for first in range(0, len(hidden), chunk)]
    parts = [checkpoint(part, hidden[s], weight, s, use_reentrant=False) for s in spans]
    return torch.stack(parts).sum()


def materialised(hidden: Tensor, weight: Tensor, inputs: Inputs, _: int) -> Tensor:
    return grpo_loss(linear(hidden, weight), *inputs.arguments, inplace=True).loss


def fused(hidden: Tensor, weight: Tensor, inputs: Inputs, chunk: int) -> Tensor:
    return linear_grpo_loss(hidden, weight, *inputs.arguments, chunk_tokens=chunk).loss


LOSSES = {
    "eager": eager,
    "checkpointed": checkpointed,
    "materialised, fused loss": materialised,
    "linear_grpo_loss": fused,
}


def step(name: str, inputs: Inputs, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forward and backward; the loss and the gradients of hidden states and weight."""
    hidden, weight = inputs.hidden.detach().requires_grad_(), inputs.weight.detach().requires_grad_()
    loss = LOSSES[name](hidden, weight, inputs, chunk)
    return loss.detach(), *torch.autograd.grad(loss, [hidden, weight])


def products(inputs: Inputs, chunk: int) -> None:
    """The three matrix products of every chunk and nothing else."""
    for first in range(0, len(inputs.hidden), chunk):
        hidden = inputs.hidden[first : first + chunk]
        logits = linear(hidden, inputs.weight)
        torch.mm(logits, inputs.weight)
        torch.mm(logits.t(), hidden)


def check(inputs: Inputs, chunk: int) -> str:
    """Relative errors of the gradients against float64, as a line; raises if one is wrong."""
    loss, *gradients = step("eager", inputs.double(), chunk)
    parts = []
    for name in LOSSES:
        value, *got = step(name, inputs, chunk)
        pairs = zip(got, gradients, strict=True)
        error = max(((g.double() - e).norm() / e.norm()).item() for g, e in pairs)
        limit = 5e-2 if inputs.hidden.dtype == torch.bfloat16 else 1e-5
        if not (error < limit and abs(value.item() - loss.item()) < limit):
            raise AssertionError(
                f"{name}: gradient off by {error:.1e}, loss {value.item()} against {loss.item()}"
            )
        parts.append(f"{name} {error:.1e}")
    return ", ".join(parts)


def variants(inputs: Inputs, chunk: int) -> list[Variant]:
    made = [Variant(name, lambda _, name=name: step(name, inputs, chunk)) for name in LOSSES]
    return [*made, Variant("matrix products", lambda _: products(inputs, chunk))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for dtype in args.dtype:
        print(
            f"\n{dtype}, N={args.tokens}, H={args.hidden}, V={args.vocab}, chunks of {args.chunk}, "
            f"{args.threads} thread(s), torch {torch.__version__}"
        )
        sample = Inputs.random(min(args.tokens, 16), args.hidden, args.vocab, DTYPES[dtype], seed=9)
        print("gradient error against float64:", check(sample, 5))
        inputs = Inputs.random(args.tokens, args.hidden, args.vocab, DTYPES[dtype], seed=0)
        timings = compare(variants(inputs, args.chunk), args.rounds)
        print(table(timings, "eager"))
        wall, cpu = ratios(timings, "matrix products", "linear_grpo_loss")
        print(f"linear_grpo_loss: {1 / wall:.2f} times the products alone by wall time, {1 / cpu:.2f} by CPU")


if __name__ == "__main__":
    main()
