"""Peak of what torch's CPU allocator holds, from the profiler's allocation events."""

from collections.abc import Callable

import torch


def peak_bytes(step: Callable[[], object]) -> int:
    """The most bytes `step` held at once beyond what was held before it."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def scratch_of_products(dtype: torch.dtype, chunk: int, vocab: int, width: int) -> list[int]:
    """What torch's own products of a chunk hold while they run, beyond operands and results: bytes of each.

    hidden @ weight.T, its transposed gradient @ hidden (and added to), gradient @ weight. On some processors
    a product of 16 bits keeps its sums or operands in another form meanwhile, as large as the logits; on
    others it is 0.
    """
    hidden, weight = torch.randn(chunk, width).to(dtype), torch.randn(vocab, width).to(dtype)
    logits, d_weight, d_hidden = torch.empty(chunk, vocab, dtype=dtype), weight.clone(), hidden.clone()
    products = (
        lambda: torch.mm(hidden, weight.t(), out=logits),
        lambda: torch.mm(logits.t(), hidden, out=d_weight),
        lambda: torch.addmm(d_weight, logits.t(), hidden, out=d_weight),
        lambda: torch.mm(logits, weight, out=d_hidden),
    )
    scratch = []
    for product in products:
        product()  # what a library prepares once and keeps is none of it
        scratch.append(peak_bytes(product))
    return scratch
