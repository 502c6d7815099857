"""A completion's tokens in runs of one kind, for displays that tell thinking and solution apart."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from elastic.budget import Phase, Source


class Kind(str, Enum):
    """What a reader wants to tell apart. A forced token is marked in whichever phase it stands."""

    THINKING = "thinking"
    FORCED = "forced"
    SOLUTION = "solution"


class Segment(NamedTuple):
    """A run of tokens of one kind."""

    kind: Kind
    tokens: tuple[int, ...]


def kind_of(source: int, phase: int) -> Kind | None:
    """The kind of one token, None for a pad.

    A natural end marker belongs to the thinking that it ends. So do white space and a start marker that the
    model sampled before its thinking.
    """
    if source == Source.PAD:
        return None
    if source == Source.FORCED:
        return Kind.FORCED
    return Kind.SOLUTION if phase == Phase.SOLUTION else Kind.THINKING


def segments(tokens: Sequence[int], source: Sequence[int], phase: Sequence[int]) -> Iterator[Segment]:
    """The runs of a completion in order.

    Args:
        tokens: ids of one row.
        source: `elastic.Source` of each token.
        phase: `elastic.Phase` of each token.
    """
    run: list[int] = []
    kind: Kind | None = None
    for token, token_source, token_phase in zip(tokens, source, phase, strict=True):
        token_kind = kind_of(token_source, token_phase)
        if token_kind != kind:
            if kind is not None:
                yield Segment(kind, tuple(run))
            run, kind = [], token_kind
        run.append(token)
    if kind is not None:
        yield Segment(kind, tuple(run))
