"""Where thinking and solution stand in the text of a row.

The phases say which tokens belong to the thinking block, the markers' texts inside its last tokens where to
cut: a token may hold the end of one and the beginning of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from elastic.budget import Phase
from elastic.budget.markers import Markers, NaturalEnd
from elastic.budget.pattern import LONGEST_MARKER

Decode = Callable[[Sequence[int]], str]

_BLOCK = (Phase.THINKING, Phase.CLOSING, Phase.NOTICE)


def thinking_span(
    tokens: Sequence[int], phases: Sequence[int], markers: Markers, decode: Decode
) -> tuple[int, int, int]:
    """Places in the text at which the thinking begins and ends, and the solution begins.

    The solution begins behind an end marker, and with an end that opens something (R18). A row that answered
    without ever thinking is all solution; one that was cut while thinking has none.

    Args:
        tokens: ids of a row, without the EOS that ended it.
        phases: of the row's tokens, that EOS included.
        markers: that the row was decoded with.
        decode: ids to text.
    """
    answered = Phase.SOLUTION in phases
    answer = phases.index(Phase.SOLUTION) if answered else len(phases)
    block = [i for i, phase in enumerate(phases) if phase in _BLOCK]
    if not block and not (answered and markers.start_pattern.tail(tokens[:answer])):
        # Opened and nothing more; or the tokens of a start marker that never came are solution too.
        nowhere = 0 if answered else len(decode(tokens))
        return nowhere, nowhere, nowhere
    begin = block[0] if block else answer
    first = len(decode(tokens[:begin]))
    opener = _opener(tokens, phases, begin, answer, markers) if answered else None
    if opener is not None:
        at = decode(tokens[: answer + 1]).rfind(_text(opener, decode), first)
        return first, at, at
    text = decode(tokens[: block[-1] + 1] if block else tokens[:begin])
    found = []
    for end in _closings(markers):
        marker = _text(end, decode)
        at = text.rfind(marker, first) if answered or text.endswith(marker) else -1
        if at >= 0:
            found.append((at + len(marker), len(marker)))
    behind, length = max(found, default=(len(text), 0))
    return first, behind - length, behind


def _opener(
    tokens: Sequence[int], phases: Sequence[int], begin: int, answer: int, markers: Markers
) -> NaturalEnd | None:
    """The end that opened the solution with its last token, if one did."""
    if answer > begin and phases[answer - 1] != Phase.THINKING:
        return None  # forced
    window = tokens[max(begin, answer - LONGEST_MARKER) : answer + 1]
    ends = [end for end in (*_end_marker(markers), *markers.ends) for _ in end.spellings]
    match, completed = 0, None
    for token in window:
        if completed is not None and not ends[completed].opens:
            return None  # an end marker was complete one token before
        match = markers.ends_pattern.advance(match, token)
        completed = markers.ends_pattern.completed(match)
    return ends[completed] if completed is not None and ends[completed].opens else None


def _end_marker(markers: Markers) -> list[NaturalEnd]:
    return [NaturalEnd(markers.end_spellings, markers.end_text, opens=False)]


def _closings(markers: Markers) -> list[NaturalEnd]:
    return [*_end_marker(markers), *(end for end in markers.ends if not end.opens)]


def _text(end: NaturalEnd, decode: Decode) -> str:
    return end.text or decode(end.spellings[0].ids)
