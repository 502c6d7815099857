"""`sample` on rows of several kinds: peaked, as a language model's mostly are, N(0, 3) and flat.

B rows, V vocabulary. What a filter costs depends on how much of a row it keeps; rows that are forced are not
read; a masked marker takes a second look. Least traffic: the logits read once.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import Case, Variant, ceiling, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import model_of
from bench.ops.budget_step import EOS, MARKERS, PAD, START
from bench.ops.inputs import assert_near
from bench.ops.sample_kinds import FILTERS
from elastic import Budget, Phase, ops
from elastic.budget.machine import compile_budgets

Draw = tuple[Tensor, Tensor]


def rows_of(kind: str, noise: Tensor) -> Tensor:
    """Turns float32 noise [B, V] into logits of a kind; a peaked row has a token of the probability named."""
    if kind == "N(0,3)":
        return noise.mul_(3)
    if kind == "flat":
        return noise.mul_(0.1)
    probability = float(kind.removeprefix("peaked "))
    rows = noise.mul_(2)
    at = torch.arange(len(rows), device=rows.device)[:, None] * 7919 % rows.shape[1]
    return rows.scatter_(1, at, rows.logsumexp(1, keepdim=True) + math.log(probability / (1 - probability)))


def case(device: Device, kind: str, rows: int, vocab: int, dtype: torch.dtype) -> Case:
    generator = torch.Generator(device.torch).manual_seed(7)
    logits = rows_of(kind, torch.randn(rows, vocab, device=device.torch, generator=generator)).to(dtype)
    seeds, positions = (torch.arange(rows, device=device.torch) for _ in range(2))
    machine, index = compile_budgets(
        [Budget(4096, 4096, on_reopen="forbid")], MARKERS, None, eos_ids=[EOS], pad_id=PAD
    )
    index, machine = index.expand(rows).to(device.torch).contiguous(), machine.to(device.torch)

    def flush(_: int) -> None:
        device.flush_cache()

    def elastic(settings: dict[str, Any]) -> Callable[[int], Draw]:
        def call(_: int) -> Draw:
            drawn = ops.sample(logits, seeds, positions, **settings)
            return drawn.tokens, drawn.full_logprobs

        return call

    def flashinfer(settings: dict[str, Any]) -> Callable[[int], Draw]:
        from flashinfer import sampling

        draws: dict[tuple[str, ...], Callable[[Tensor], Tensor]] = {
            (): sampling.sampling_from_probs,
            ("top_p",): lambda probs: sampling.top_p_sampling_from_probs(probs, settings["top_p"]),
            ("top_k",): lambda probs: sampling.top_k_sampling_from_probs(probs, settings["top_k"]),
            ("top_k", "top_p"): lambda probs: sampling.top_k_top_p_sampling_from_probs(
                probs, settings["top_k"], settings["top_p"]
            ),
        }
        draw = draws[tuple(settings)]

        def call(_: int) -> Draw:
            probs = torch.softmax(logits.float(), dim=-1)
            tokens = draw(probs).long()
            return tokens, probs.gather(1, tokens[:, None])[:, 0].log()

        return call

    def check(settings: dict[str, Any], result: Draw) -> None:
        tokens, logprobs = result
        exact = torch.log_softmax(logits.double(), dim=-1)
        own = exact.gather(1, tokens[:, None])
        assert_near("logprobs", logprobs, own[:, 0])
        likelier = exact > own
        assert likelier.sum(-1).max() < settings.get("top_k", vocab), "a token outside top-k"
        assert (exact.exp() * likelier).sum(-1).max() < settings.get("top_p", 1.0) + 1e-3, (
            "outside the nucleus"
        )

    def stepping(name: str, phases: Tensor) -> Variant:
        first = ops.new_state(index, machine, phase=phases.to(torch.int32))
        state = first.clone()
        draws = phases != Phase.DONE

        def restart(_: int) -> None:
            state.copy_(first)
            device.flush_cache()

        def call(_: int) -> Draw:
            drawn = ops.sample(logits, seeds, positions, state=state, machine=machine)
            return drawn.tokens, drawn.full_logprobs

        def check_drawn(result: Draw) -> None:
            tokens, logprobs = result[0][draws], result[1][draws]
            kept = tokens != EOS
            exact = torch.log_softmax(logits[draws].double(), dim=-1).gather(1, tokens[:, None])[:, 0]
            assert_near("logprobs", logprobs[kept], exact[kept])
            assert not (tokens == START).any(), "a masked token"

        return Variant(f"elastic, {name}", lambda: call, check_drawn, restart)

    solution = torch.full((rows,), int(Phase.SOLUTION), device=device.torch)
    third = torch.arange(rows, device=device.torch) % 3 == 1
    variants = [ceiling(device, logits)]
    for name, settings in FILTERS.items():
        checked = partial(check, settings)
        variants.append(Variant(f"elastic{name}", partial(elastic, settings), checked, flush))
        if device.is_cuda:
            need = ("flashinfer-python",)
            variants.append(
                Variant(f"flashinfer{name}", partial(flashinfer, settings), checked, flush, needs=need)
            )
    variants.append(stepping("a marker masked", solution))
    variants.append(stepping("a third finished", solution.masked_fill(third, int(Phase.DONE))))
    shape = f"B={rows} V={vocab} {kind}"
    return Case(
        "sample",
        shape,
        name_of(dtype),
        variants,
        bytes=nbytes(logits),
        baseline="elastic",
        model=model_of(vocab),
    )
