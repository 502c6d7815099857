"""How `python -m bench` shares its time among its cases."""

import time
from collections.abc import Callable, Sequence

from bench.cases import Entry
from bench.harness.case import Case
from bench.harness.device import Device
from bench.harness.run import Outcome, error_of, run_case

LEAST_ROUNDS, MOST_ROUNDS = 3, 31
FIRST_SHARE = 0.6  # of an entry's time; the rest is for measuring again what was unsteady


def run(
    entries: Sequence[Entry],
    device: Device,
    seconds: float,
    done: Callable[[Outcome], None],
    rounds: int | None = None,
    without: Sequence[str] = (),
) -> None:
    """Measures one entry after another in the time there is.

    What an entry leaves of its share goes to those after it. Each gets at least `LEAST_ROUNDS` rounds while
    the time lasts; entries that it does not last for are skipped by name.

    Args:
        done: gets each entry's outcome.
        rounds: instead of as many as fit.
        without: names of variants to leave out.
    """
    deadline = time.monotonic() + seconds
    for number, one in enumerate(entries):
        now = time.monotonic()
        if now >= deadline:
            left = {"op": one.op, "shape": "", "dtype": "", "variant": "all", "why": "time was up"}
            done(Outcome(skipped=[left]))
            continue
        share = (deadline - now) * one.weight / sum(e.weight for e in entries[number:])
        first = rounds_until(now + FIRST_SHARE * share, deadline)
        again = 0 if rounds else rounds_left(now + share)
        # Making a case allocates and computes inputs, which may fail, too; see `run_case`.
        try:
            case = one.make(device).without(*without)
            outcome = run_case(case, device, rounds or first, again=again)
        except Exception as error:
            outcome = Outcome(errors=[error_of(Case(one.op, "", "", []), "all", error)])
        done(outcome)
        device.release()


def rounds_until(until: float, deadline: float) -> Callable[[float], int]:
    """How many rounds fit: `LEAST_ROUNDS` also beyond `until`, but none but the first beyond the deadline."""

    def rounds(round_s: float) -> int:
        now, round_s = time.monotonic(), max(round_s, 1e-6)
        wanted = min(MOST_ROUNDS, max(LEAST_ROUNDS, int((until - now) / round_s)))
        return max(1, min(wanted, int((deadline - now) / round_s)))

    return rounds


def rounds_left(until: float) -> Callable[[float], int]:
    """How many rounds of a second measurement fit; none where they would be fewer than `LEAST_ROUNDS`."""

    def rounds(round_s: float) -> int:
        fit = int((until - time.monotonic()) / max(round_s, 1e-6))
        return min(MOST_ROUNDS, fit) if fit >= LEAST_ROUNDS else 0

    return rounds
