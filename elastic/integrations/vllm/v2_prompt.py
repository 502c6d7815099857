"""In which phase a prompt leaves a request, read where its tokens lie: on the device.

B requests, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elastic.budget import Phase
from elastic.budget.machine import END_SHIFT, START_SHIFT, TokenFlag
from elastic.budget.markers import Markers
from elastic.budget.pattern import LONGEST_MARKER, Pattern

# The longest marker, and white space behind it. A prompt with more of it starts in OPENING.
PROMPT_TAIL = LONGEST_MARKER + 40


def prompt_phase(tail: Tensor, inside: Tensor, token_flags: Tensor, markers: Markers) -> Tensor:
    """`Markers.initial_phase` for many prompts, without reading them back to the host.

    Args:
        tail: [B, W] integers, the last W tokens of each prompt.
        inside: [B, W] bool, which columns belong to the prompt; a short one has none in front.
        token_flags: [V'] int64, the machine's.
        markers: the markers that the flags were made for.

    Returns:
        [B] int64 of `Phase`: THINKING, SOLUTION or OPENING.
    """
    ids = tail.long()
    known = inside & (ids < len(token_flags))
    flags = torch.where(known, token_flags[ids.clamp(0, len(token_flags) - 1)], 0)
    blank = (flags & TokenFlag.WHITESPACE) != 0
    # Whether only white space stands behind a column.
    last = torch.nn.functional.pad(blank[:, 1:], (0, 1), value=True)
    last = last.flip(1).cumprod(1).flip(1).bool()
    starts = _ends(flags >> START_SHIFT, markers.start_pattern) & last
    ends = _ends(flags >> END_SHIFT, markers.ends_pattern) & last
    column = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    opened, closed = ((found * column).amax(1) for found in (starts, ends))
    phase = torch.where(closed > opened, int(Phase.SOLUTION), int(Phase.THINKING))
    return phase.masked_fill((opened == 0) & (closed == 0), int(Phase.OPENING))


def _ends(places: Tensor, pattern: Pattern) -> Tensor:
    """[B, W] bool, where an occurrence ends; `places` [B, W] holds the places each token can take."""
    found = torch.zeros_like(places, dtype=torch.bool)
    width = places.shape[1]
    for offset, spelling in zip(pattern.offsets, pattern.spellings, strict=True):
        size = len(spelling)
        here = torch.ones_like(found[:, size - 1 :])
        for i in range(size):
            here &= (places[:, i : width - size + 1 + i] >> offset + i & 1).bool()
        found[:, size - 1 :] |= here
    return found
