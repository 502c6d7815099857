"""`grpo_loss` forward + backward against eager PyTorch: `python -m bench.grpo_loss`.

N = 256 tokens, V = 151,936 (Qwen's vocabulary). The eager baseline is as lean as eager gets: log_softmax in
float32, gather, the clipped objective; it computes no entropy, KL or clip fraction, which `grpo_loss` returns
too.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import elastic.reference
from bench.compare import Variant, compare, ratios, table
from elastic.ops import grpo_loss

ROWS = 8  # completions the tokens are packed into
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Inputs:
    """One packed batch: logits [N, V], targets [N], old_logprobs [N], row_offsets [R + 1], advantages [R]."""

    logits: Tensor
    targets: Tensor
    old_logprobs: Tensor
    row_offsets: Tensor
    advantages: Tensor

    @classmethod
    def random(cls, tokens: int, vocab: int, dtype: torch.dtype, seed: int) -> "Inputs":
        generator = torch.Generator().manual_seed(seed)
        logits = (torch.randn(tokens, vocab, generator=generator) * 3).to(dtype)
        targets = torch.randint(vocab, (tokens,), generator=generator)
        rows = min(ROWS, tokens)
        offsets = torch.tensor([tokens * r // rows for r in range(rows + 1)])
        with torch.no_grad():
            logprobs = torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0]
        old = logprobs + 0.1 * torch.randn(tokens, generator=generator)
        return cls(logits, targets, old, offsets, torch.randn(rows, generator=generator))


def eager_loss(logits: Tensor, inputs: Inputs) -> Tensor:
    """The clipped objective, mean over rows of each row's mean: what `grpo_loss` computes by default."""
    lengths = inputs.row_offsets.diff()
    advantage = inputs.advantages.repeat_interleave(lengths)
    scale = (1 / (lengths * len(lengths))).repeat_interleave(lengths)
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32).gather(1, inputs.targets[:, None])[:, 0]
    ratio = torch.exp(logprobs - inputs.old_logprobs)
    return -(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) * scale).sum()


def fused_loss(logits: Tensor, inputs: Inputs, inplace: bool) -> Tensor:
    return grpo_loss(
        logits, inputs.targets, inputs.old_logprobs, inputs.row_offsets, inputs.advantages, inplace=inplace
    ).loss


def reference_loss(logits: Tensor, inputs: Inputs) -> Tensor:
    return elastic.reference.grpo_loss(
        logits, inputs.targets, inputs.old_logprobs, inputs.row_offsets, inputs.advantages
    ).loss


def step(loss: Callable[[Tensor, Inputs], Tensor], logits: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Forward and backward; the loss and the logits' gradient."""
    leaf = logits.detach().requires_grad_()
    value = loss(leaf.view(leaf.shape), inputs)  # a view: the in-place op refuses leaves
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def variants(sets: list[Inputs], compiled: bool) -> list[Variant]:
    work = sets[0].logits.clone()

    def of(number: int) -> Inputs:
        return sets[number % len(sets)]

    def inplace(number: int) -> object:
        return step(lambda x, i: fused_loss(x, i, inplace=True), work, of(number))

    made = [
        Variant("eager", lambda n: step(eager_loss, of(n).logits, of(n))),
        Variant("fused", lambda n: step(lambda x, i: fused_loss(x, i, inplace=False), of(n).logits, of(n))),
        Variant("fused, in place", inplace, prepare=lambda n: work.copy_(of(n).logits)),
        Variant("reference", lambda n: step(reference_loss, of(n).logits, of(n))),
        Variant(
            "read + write in place", lambda n: work.mul_(1.0), prepare=lambda n: work.copy_(of(n).logits)
        ),
    ]
    if compiled:
        fast = torch.compile(eager_loss, dynamic=False)
        made.append(Variant("torch.compile", lambda n: step(fast, of(n).logits, of(n))))
    return made


def check(inputs: Inputs) -> str:
    """Relative error of the gradients against float64, as a line; raises if one is wrong."""
    exact = Inputs(
        inputs.logits.double(),
        inputs.targets,
        inputs.old_logprobs.double(),
        inputs.row_offsets,
        inputs.advantages.double(),
    )
    loss, gradient = step(reference_loss, exact.logits, exact)
    parts = []
    candidates = {
        "eager": eager_loss,
        "fused": lambda x, i: fused_loss(x, i, inplace=False),
        "fused, in place": lambda x, i: fused_loss(x, i, inplace=True),
    }
    for name, candidate in candidates.items():
        value, got = step(candidate, inputs.logits.clone(), inputs)
        error = ((got.double() - gradient).norm() / gradient.norm()).item()
        limit = 5e-3 if got.dtype == torch.bfloat16 else 1e-5
        if not (error < limit and abs(value.item() - loss.item()) < 1e-4):
            raise AssertionError(
                f"{name}: gradient off by {error:.1e}, loss {value.item()} against {loss.item()}"
            )
        parts.append(f"{name} {error:.1e}")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the eager baseline")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.dtype:
        print(
            f"\n{name}, N={args.tokens}, V={args.vocab}, {args.threads} thread(s), torch {torch.__version__}"
        )
        sample = Inputs.random(min(args.tokens, 16), args.vocab, DTYPES[name], seed=9)
        print("gradient error against float64:", check(sample))
        sets = [Inputs.random(args.tokens, args.vocab, DTYPES[name], seed) for seed in range(2)]
        timings = compare(variants(sets, args.compile), args.rounds)
        print(table(timings, "eager"))
        for fused in ("fused", "fused, in place"):
            wall, cpu = ratios(timings, "eager", fused)
            print(f"{fused}: {wall:.1f} times eager by wall time, {cpu:.1f} by CPU time")


if __name__ == "__main__":
    main()
