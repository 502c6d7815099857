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
