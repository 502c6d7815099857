"""What tokens, rows and their ends are called: the enumerations that ops, records and tables share."""

from enum import IntEnum


class Source(IntEnum):
    """Where an emitted token comes from. Only SAMPLED tokens carry loss and count against a budget."""

    SAMPLED = 0
    FORCED = 1
    PAD = 2


class Phase(IntEnum):
    """What a row is doing; for a token, the phase it was emitted in.

    The tokens of a natural end marker are THINKING. A forced end marker and the text before it are CLOSING,
    the forced text behind it is SOLUTION. Notices and extensions are NOTICE. In a natural end that opens
    something (R18), the token that completes it is SOLUTION.
    """

    OPENING = 0
    THINKING = 1
    CLOSING = 2
    NOTICE = 3
    SOLUTION = 4
    DONE = 5


# Where a row may start, by the name that a caller states.
START_PHASES = {phase.name.lower(): phase for phase in (Phase.OPENING, Phase.THINKING, Phase.SOLUTION)}


class FinishReason(IntEnum):
    """Why a row ended. STOP: an EOS, or a stop string of the engine. LENGTH: the row reached the engine's
    length limit before its budget. CANCELLED: somebody ended it from outside.
    """

    RUNNING = 0
    STOP = 1
    SOLUTION_BUDGET = 2
    TOTAL_BUDGET = 3
    LENGTH = 4
    CANCELLED = 5

    @property
    def text(self) -> str:
        """The name used in records: "stop", "solution_budget", ...; "" while the row runs."""
        return "" if self is FinishReason.RUNNING else self.name.lower()
