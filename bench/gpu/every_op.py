"""Every op once on small shapes, held to the CPU: `python -m bench.gpu.every_op`.

What compute-sanitizer watches, so it is short: each shape is there for a code path. Exits with 1 where a
result is wrong.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets
from elastic.ops import _extension

LOSSES = ("grpo", "dapo", "gspo", "cispo", "sapo")
# Odd: rows off a 16-byte boundary. 4,096: whole tiles. 20,011: several tiles and an end.
VOCABULARIES = (37, 4096, 20_011)
# The table's own choice; a row streamed; a row in one block; rows in clusters.
LAUNCHES = ((-1, 0), (0, 256), (1, 256), (2, 256), (8, 512))
RINGS = ((-1, 0, "ring"), (4, 0, "ring_direct"))
TOKENS = 6


def assert_same(name: str, got: Tensor, expected: Tensor, limit: float) -> None:
    error = ((got.cpu().double() - expected.double()).abs() / expected.double().abs().clamp(min=1)).max()
    assert error < limit, f"{name} off by {error:.1e}, expected less than {limit:.0e}"


def loss_ops(device: torch.device, vocab: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocab)
    padded = (torch.randn(TOKENS, vocab + 3, generator=generator) * 2).to(dtype)  # rows get a stride
    targets = torch.randint(vocab, (TOKENS,), generator=generator)
    old = -torch.rand(TOKENS, generator=generator) * 5
    mask = torch.tensor([True, True, False, True, True, True])
    offsets, groups = torch.tensor([0, 2, 3, TOKENS]), torch.tensor([0, 3])
    rewards = torch.tensor([1.0, 0.0, 0.5])
    ids = torch.stack([targets, (targets + 1) % vocab, (targets + 5) % vocab]).sort(0).values.T
    kept = {"kept_ids": ids[1:].flatten().int(), "kept_offsets": torch.tensor([0, 0, 3, 6, 9, 12, 15])}
    limit = 1e-4 if dtype == torch.float32 else 2e-2

    def both(loss: str, inplace: bool, there: torch.device) -> tuple[Tensor, Tensor]:
        leaf = padded.to(there, copy=True).requires_grad_()
        out = ops.grpo_loss(
            (leaf * 1)[:, :vocab],  # in place writes over no leaf
            targets.to(there),
            old.to(there),
            offsets.to(there),
            rewards=rewards.to(there),
            group_offsets=groups.to(there),
            mask=mask.to(there),
            loss=loss,
            entropy_coef=0.01,
            softcap=20.0 if loss == "dapo" else None,
            inplace=inplace,
            **({k: x.to(there) for k, x in kept.items()} if loss != "cispo" else {}),
        )
        return out.loss.detach(), torch.autograd.grad(out.loss, leaf)[0]

    for loss in LOSSES:
        for inplace in (False, True):
            value, gradient = both(loss, inplace, device)
            expected, expected_gradient = both(loss, False, torch.device("cpu"))
            assert_same(f"{loss}: loss", value, expected, limit)
            assert_same(f"{loss}: gradient", gradient, expected_gradient, limit)
    results = []
    for there in (device, torch.device("cpu")):
        leaf = padded.to(there, copy=True).requires_grad_()
        logprobs, entropy = ops.token_logprobs(leaf[:, :vocab], targets.to(there), 0.7)
        (gradient,) = torch.autograd.grad((logprobs - 0.5 * entropy).sum(), leaf)
        results.append((logprobs.detach(), entropy.detach(), gradient))
    for name, got, expected in zip(("logprobs", "entropy", "their gradient"), *results, strict=True):
        assert_same(name, got, expected, limit)


def linear_op(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, 32, generator=generator).to(dtype)
    weight = (torch.randn(301, 32, generator=generator) * 0.2).to(dtype)
    targets = torch.randint(301, (TOKENS,), generator=generator)
    results = []
    for there in (device, torch.device("cpu")):
        leaves = [hidden.to(there).requires_grad_(), weight.to(there).requires_grad_()]
        rest = (targets, torch.full((TOKENS,), -5.0), torch.tensor([0, 2, TOKENS]), torch.tensor([1.0, -1.0]))
        loss = ops.linear_grpo_loss(*leaves, *(x.to(there) for x in rest), chunk_tokens=4).loss
        logprobs, entropy = ops.linear_token_logprobs(*leaves, targets.to(there), 0.7, chunk_tokens=4)
        slopes = torch.autograd.grad((logprobs - 0.5 * entropy).sum(), leaves)
        results.append((loss.detach(), *torch.autograd.grad(loss, leaves), logprobs.detach(), *slopes))
    names = ("loss", "dHidden", "dWeight", "logprobs", "their dHidden", "their dWeight")
    for name, got, expected in zip(names, *results, strict=True):
        assert_same(f"linear: {name}", got, expected, 1e-4 if dtype == torch.float32 else 2e-2)


def decode_ops(device: torch.device, rows: int) -> None:
    budgets = [Budget(i % 4, 1 + i % 3, closing=(7, 3, 7), on_reopen="forbid") for i in range(rows)]
    machine, index = compile_budgets(budgets, Markers((2,), (3,)), None, [0], 1)
    results = []
    for there in (device, torch.device("cpu")):
        on = machine.to(there)
        state, history = ops.new_state(index, on), []
        active = torch.zeros(1, dtype=torch.int32, device=there)
        for step in range(8):
            logits = torch.zeros(rows, 143, device=there)[:, step % 3 :]
            ops.force_logits_(logits, state, on)
            tokens = (torch.arange(rows, device=there) + step) % 9
            source = ops.budget_step_(tokens, state, on, active=active)
            forced = ops.forced_next(state, on)
            history.append((logits, tokens.clone(), source, state.clone(), active.clone(), forced))
        emitted = torch.stack([tokens for _, tokens, *_ in history], dim=1)
        lengths = torch.full((rows,), 8, device=there)
        history.append(tuple(ops.replay(emitted, lengths, ops.new_state(index, on), on)))
        results.append([part.cpu() for parts in history for part in parts])
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected), "a decode op differs from the CPU's"


def sample_op(device: torch.device, vocab: int, dtype: torch.dtype) -> None:
    logits = (torch.randn(5, vocab, generator=torch.Generator().manual_seed(2)) * 3).to(dtype)
    for options in ({}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"temperature": 0.0}):
        drawn = []
        for there in (device, torch.device("cpu")):
            seeds, positions = (torch.arange(5, device=there) for _ in range(2))
            drawn.append(ops.sample(logits.to(there), seeds, positions, **options, most_kept=9))
        assert torch.equal(drawn[0].tokens.cpu(), drawn[1].tokens), f"sample: other tokens, {options}"
        counts = drawn[1].kept_counts
        assert torch.equal(drawn[0].kept_counts.cpu(), counts), f"sample: other kept counts, {options}"
        listed = (torch.arange(9) < counts[:, None]) & (counts <= 9)[:, None]
        assert torch.equal(drawn[0].kept_ids.cpu()[listed], drawn[1].kept_ids[listed]), (
            f"sample: other kept ids, {options}"
        )
        assert_same(f"sample: logprobs, {options}", drawn[0].logprobs, drawn[1].logprobs, 1e-4)


def rings(
    device: torch.device, dtypes: Sequence[torch.dtype], set_launch: Callable[..., bool] | None
) -> None:
    for launch in RINGS:
        if set_launch and device.type == "cuda":
            set_launch(*launch)
        for vocab in VOCABULARIES:
            for dtype in dtypes:
                loss_ops(device, vocab, dtype)
    print("the ring agrees with the CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--ring", action="store_true", help="the losses on the ring, and nothing else")
    args = parser.parse_args()
    device = torch.device(args.device)
    set_launch = getattr(_extension.load_extension(), "set_logits_launch", None)
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    if args.ring:
        return rings(device, dtypes, set_launch)
    for launch in LAUNCHES if set_launch and device.type == "cuda" else LAUNCHES[:1]:
        if set_launch:
            set_launch(*launch)
        for vocab in VOCABULARIES if launch == LAUNCHES[0] else VOCABULARIES[-1:]:
            for dtype in dtypes:
                loss_ops(device, vocab, dtype)
    if set_launch:
        set_launch(*LAUNCHES[0])
    for rows in (1, 33, 1030):  # one warp, two, more rows than a block has threads
        decode_ops(device, rows)
    for dtype in dtypes[:2]:
        linear_op(device, dtype)
    if not torch._C._dispatch_has_kernel_for_dispatch_key("elastic::sample", device.type.upper()):
        print(f"sample has no kernel for {device.type}")
    else:
        for vocab in VOCABULARIES:
            sample_op(device, vocab, torch.float32)
    print("every op agrees with the CPU")


if __name__ == "__main__":
    main()
