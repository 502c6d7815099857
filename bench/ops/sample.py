"""`sample`: a token for every row, with its logprob. B rows, V vocabulary.

Eager is softmax, sort and cumsum where there is a filter, multinomial. Least traffic: the logits read once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import COMPILED, Case, Variant, ceiling, compiler_for, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import model_of
from bench.ops.budget_step import WORD, thinking_rows
from bench.ops.inputs import assert_near
from elastic import ops

SETS = 4
Draw = tuple[Tensor, Tensor]


def case(device: Device, rows: int, vocab: int, dtype: torch.dtype, top_p: float = 1.0) -> Case:
    generator = torch.Generator(device.torch).manual_seed(7)
    on = {"device": device.torch, "generator": generator}
    logits = [torch.randn(rows, vocab, dtype=dtype, **on).mul_(3) for _ in range(SETS)]
    seeds, positions = (torch.arange(rows, device=device.torch) for _ in range(2))

    machine, first = (part.to(device.torch) for part in thinking_rows(rows))
    state = first.clone()

    def flush(_: int) -> None:
        device.flush_cache()

    def restart(_: int) -> None:
        state.copy_(first)
        device.flush_cache()

    def call(draw: Callable[[Tensor], Draw]) -> Callable[[int], Draw]:
        return lambda number: draw(logits[number % SETS])

    def eager(x: Tensor) -> Draw:
        logprobs = torch.log_softmax(x.float(), dim=-1)
        probs = logprobs.exp()
        if top_p < 1:
            ordered, order = probs.sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
            probs = torch.zeros_like(probs).scatter_(1, order, ordered)
        return drawn_from(probs, logprobs)

    def drawn_from(probs: Tensor, logprobs: Tensor) -> Draw:
        tokens = torch.multinomial(probs, 1)
        return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]

    def transformers() -> Callable[[int], Draw]:
        from transformers import TopPLogitsWarper

        warp = TopPLogitsWarper(top_p) if top_p < 1 else lambda _, scores: scores

        def draw(x: Tensor) -> Draw:
            scores = x.float()
            kept = warp(None, scores)
            return drawn_from(torch.softmax(kept, dim=-1), torch.log_softmax(scores, dim=-1))

        return call(draw)

    def flashinfer() -> Callable[[int], Draw]:
        from flashinfer.sampling import sampling_from_probs, top_p_sampling_from_probs

        def draw(x: Tensor) -> Draw:
            probs = torch.softmax(x.float(), dim=-1)
            drawn = top_p_sampling_from_probs(probs, top_p) if top_p < 1 else sampling_from_probs(probs)
            tokens = drawn.long()
            return tokens, probs.gather(1, tokens[:, None])[:, 0].log()

        return call(draw)

    def fused(x: Tensor) -> Draw:
        drawn = ops.sample(x, seeds, positions, top_p=top_p)
        return drawn.tokens, drawn.full_logprobs

    def fused_step(x: Tensor) -> Draw:
        drawn = ops.sample(x, seeds, positions, top_p=top_p, state=state, machine=machine)
        return drawn.tokens, drawn.full_logprobs

    def check(result: tuple[Any, Any]) -> None:
        tokens, logprobs = result
        assert tokens.min() >= 0, "a negative token"
        assert tokens.max() < vocab, "a token outside the vocabulary"
        exact = torch.log_softmax(logits[0].double(), dim=-1)
        assert_near("logprobs", logprobs, exact.gather(1, tokens[:, None])[:, 0])
        likelier = (exact.exp() * (exact > exact.gather(1, tokens[:, None]))).sum(-1)
        assert likelier.max() < top_p + 1e-3, "a token outside the nucleus"

    def check_step(result: tuple[Any, Any]) -> None:
        tokens, logprobs = result
        drawn = tokens != WORD  # else forced in place of an EOS
        exact = torch.log_softmax(logits[0][drawn].double(), dim=-1)
        assert_near("logprobs", logprobs[drawn], exact.gather(1, tokens[drawn, None])[:, 0])

    def compiled() -> Callable[[int], Draw]:
        return call(torch.compile(eager, dynamic=False))

    variants = [
        Variant("eager", lambda: call(eager), check, flush),
        Variant("transformers", transformers, check, flush, needs=("transformers",)),
        Variant("elastic", lambda: call(fused), check, flush),
        Variant("elastic, with the budget step", lambda: call(fused_step), check_step, restart),
        ceiling(device, logits[0]),
    ]
    if top_p == 1:
        variants.append(Variant(COMPILED, compiled, check, flush, needs=compiler_for(device)))
    if device.is_cuda:
        need = ("flashinfer-python",)
        variants.append(Variant("flashinfer", flashinfer, check, flush, needs=need))
    shape = f"B={rows} V={vocab}" + (f" top_p={top_p}" if top_p < 1 else "")
    return Case("sample", shape, name_of(dtype), variants, bytes=nbytes(logits[0]), model=model_of(vocab))
