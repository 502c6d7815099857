"""Markers whose thinking ends in several ways, and rows under them, for the rules by hand."""

import torch

from elastic import Markers, Phase, Source, ops
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling
from tests.budget.helpers import machine_for, run

START, END = 2, 3
A, B = 4, 5
X, Y, Z = 6, 7, 8
T, U = 10, 11  # <tool _call>
OTHER = 12  # </thinking>
M = 15  # B with other text behind it
TOOL = Markers((START,), (END,), ends=((T, U), NaturalEnd((Spelling((OTHER,)),), opens=False)))
# "y a b" is configured, "a b" is left of it without its phrase.
PHRASE = Markers((START,), (Y, A, B), ends=(NaturalEnd((Spelling((A, B)),), opens=False),))
S, F = Source.SAMPLED, Source.FORCED
THINKING, CLOSING, SOLUTION = Phase.THINKING, Phase.CLOSING, Phase.SOLUTION


def row(budget, stream, markers=TOOL, start=Phase.THINKING, used=0):
    machine = machine_for(budget, markers)
    return run(machine, stream, state=ops.new_state(1, machine, phase=[int(start)], thinking_used=used))


def masked(machine, state) -> list[int]:
    logits = torch.zeros(1, 100)
    ops.force_logits_(logits, state, machine)
    return torch.isinf(logits[0]).nonzero()[:, 0].tolist()
