"""Sampling in plain PyTorch: the specification of `elastic.ops.sample`, bit for bit.

B rows, V vocabulary. A token's probability is an integer weight, so that sums are exact in any order and no
device, batch or thread count can change a draw. The weights come from a fixed polynomial of single-precision
fused multiply-adds, which PyTorch lacks; `_fma` builds it from double precision.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from elastic.budget import Phase, Source
from elastic.budget.machine import Machine
from elastic.budget.table import Column
from elastic.reference.budget_rules import Rules, rules_of
from elastic.reference.budget_state import Row, load_rows
from elastic.sampling import SampleOutput

_MASK32 = 0xFFFFFFFF

# Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
_PHILOX_M = (0xD2511F53, 0xCD9E8D57)
_PHILOX_W = (0x9E3779B9, 0xBB67AE85)
_PHILOX_ROUNDS = 10

_WEIGHT_BITS = 40  # a vocabulary of 2^22 still sums below 2^63
_LOWEST_POWER = -62.0
# 2^f = 1 + f (P1 + f (P2 + ...)) on [-1/2, 1/2], relative error 1.1e-7
_POWERS = tuple(
    map(
        float.fromhex,
        ("0x1.5bba14p-10", "0x1.3cea88p-7", "0x1.c6b752p-5", "0x1.ebf9bcp-3", "0x1.62e42ap-1", "0x1p0"),
    )
)


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10.

    Args:
        counter: four int64 tensors holding 32-bit words, broadcastable against the key's.
        key: two int64 tensors holding 32-bit words.

    Returns:
        Four int64 tensors holding 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_PHILOX_ROUNDS):
        # 32 x 32 -> 64 bits; int64 wraps, and the masks take the sign extension off again.
        p0, p1 = c0 * _PHILOX_M[0], c2 * _PHILOX_M[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK32) ^ c1 ^ k0,
            p1 & _MASK32,
            ((p0 >> 32) & _MASK32) ^ c3 ^ k1,
            p0 & _MASK32,
        )
        k0, k1 = (k0 + _PHILOX_W[0]) & _MASK32, (k1 + _PHILOX_W[1]) & _MASK32
    return c0, c1, c2, c3


def row_random(seeds: Tensor, positions: Tensor) -> Tensor:
    """The random number of each (row, position): a pure function of the two.

    Args:
        seeds: int64, the key of a row's generator.
        positions: int64, the counter: how many tokens the row's completion holds so far; broadcastable
            against `seeds`.

    Returns:
        int64 of the broadcast shape, 53 random bits; over 2^53 it is uniform in [0, 1).
    """
    zero = torch.zeros_like(positions)
    counter = (positions & _MASK32, (positions >> 32) & _MASK32, zero, zero)
    x0, x1, _, _ = philox(counter, (seeds & _MASK32, (seeds >> 32) & _MASK32))
    return (x0 >> 5) * 2**26 + (x1 >> 6)


def weights(logits: Tensor, temperature: float) -> Tensor:
    """floor(2^40 exp((x - max x) / temperature)) by the kernels' own polynomial: [..., V] int64.

    Args:
        logits: [..., V] float32, each row with a finite maximum and no NaN.
    """
    scale = torch.tensor(min(max(1.4426950408889634 / temperature, 1e-37), 1e38), dtype=torch.float32)
    y = (logits - logits.amax(dim=-1, keepdim=True)) * scale
    y = y.clamp_min(_LOWEST_POWER)
    n = y.round()  # half to even
    f = y - n
    power = torch.full_like(f, _POWERS[0])
    for coefficient in _POWERS[1:]:
        power = _fma(power, f, coefficient)
    return torch.ldexp(power.double(), n + _WEIGHT_BITS).floor().to(torch.int64)


def _fma(a: Tensor, b: Tensor, c: float) -> Tensor:
    """a * b + c in float32 with one rounding.

    The product is exact in float64. The sum is rounded to odd there, so that rounding it to float32 is the
    only rounding that shows (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product = a.double() * b.double()
    total = product + c
    kept = total - product
    error = (product - (total - kept)) + (c - kept)  # what the sum lost, exactly (Knuth's two-sum)
    bits = total.view(torch.int64)
    away = (error > 0) == (total > 0)
    odd = torch.where(away, bits | 1, bits - 1)
    return torch.where((error != 0) & (bits & 1 == 0), odd, bits).view(torch.float64).float()


def distribution(
    logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """The distribution one row is drawn from, as integers: [V] int64, 0 for what the filters drop.

    Args:
        logits: [V] float32 with a finite maximum and no NaN.
        temperature: above 0.
    """
    mass = weights(logits, temperature)
    ordered = logits.sort(descending=True).values
    kept = torch.ones_like(logits, dtype=torch.bool)
    if 0 < top_k < len(logits):
        kept &= logits >= ordered[top_k - 1]
    if top_p < 1:
        total = int(mass[kept].sum())
        needed = min(max(math.ceil(top_p * float(total)), 1), total)
        by_logit, order = logits[kept].sort(descending=True)
        up_to = mass[kept][order].cumsum(0)
        kept &= logits >= by_logit[torch.searchsorted(up_to, needed)]
    if min_p > 0:
        kept &= mass >= math.ceil(min_p * 2.0**_WEIGHT_BITS)
    return mass.where(kept, 0)


def sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    masked: list[int] | None = None,
    state: Tensor | None = None,
    machine: Machine | None = None,
    *,
    most_kept: int = 0,
    active: Tensor | None = None,
    broken: Tensor | None = None,
) -> SampleOutput:
    """Draws one token a row, row by row, and takes the row's budget step where there is a state.

    Args:
        logits: [B, V] float32, bfloat16 or float16; may hold -inf.
        seeds: [B] int64 row seeds.
        positions: [B] int64, tokens the row's completion holds so far.
        temperature, top_k, top_p, min_p: as in `elastic.ops.sample`, one for all rows.
        masked: ids that may not be drawn; full logprobs ignore the mask.
        state, machine, most_kept, active, broken: as in `elastic.ops.sample`, except that a broken row never
            raises.
    """
    settings = (temperature, top_k, top_p, min_p)
    rows = [] if state is None or machine is None else load_rows(state, machine)
    rules = [] if machine is None else rules_of(machine)
    budgets: list[tuple[Rules, Row] | None] = [(rules[row.budget], row) for row in rows]
    budgets = budgets or [None] * len(logits)
    drawn = [
        _emit_row(logit.float(), random, settings, masked or [], budget)
        for logit, random, budget in zip(logits, row_random(seeds, positions).tolist(), budgets, strict=True)
    ]
    tokens, logprobs, full, source, phase, kept = zip(*drawn, strict=True) if drawn else [()] * 6
    out = SampleOutput(
        torch.tensor(tokens, dtype=torch.int64),
        torch.tensor(logprobs, dtype=torch.float32),
        torch.tensor(full, dtype=torch.float32),
        None if state is None else torch.tensor(source, dtype=torch.uint8),
        None if state is None else torch.tensor(phase, dtype=torch.uint8),
        *(_listed(kept, most_kept) if most_kept else ()),
    )
    if state is not None and rows:
        state.copy_(torch.tensor([row.store() for row in rows], dtype=torch.int32))
    if active is not None:
        active.fill_(sum(row.phase != Phase.DONE for row in rows))
    if broken is not None and not broken.item() and out.logprobs.isnan().any():
        broken.fill_(1 + int(out.logprobs.isnan().nonzero()[0]))
    return out


def _listed(kept: Sequence[list[int]], most: int) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(kept), most, dtype=torch.int32)
    for row, own in enumerate(kept):
        if len(own) <= most:
            ids[row, : len(own)] = torch.tensor(own, dtype=torch.int32)
    return ids, torch.tensor([len(own) for own in kept], dtype=torch.int32)


def _emit_row(
    logits: Tensor,
    random: int,
    settings: tuple[float, int, float, float],
    masked: list[int],
    budget: tuple[Rules, Row] | None,
) -> tuple[int, float, float, int, int, list[int]]:
    """Token, logprobs, source, phase and the ids that filters left.

    Moves the row on, unless it had to be drawn from unusable logits.
    """
    if budget is None:
        token, logprob, full, ids = _sample_row(logits, random, *settings, masked)
        return token, logprob, full, Source.SAMPLED, Phase.SOLUTION, ids
    rules, row = budget
    token, logprob, full, ids = 0, 0.0, 0.0, []
    rules.settle(row)
    if rules.next_forced(row) is None:
        token, logprob, full, ids = _sample_row(logits, random, *settings, masked + rules.masked(row))
    if math.isnan(logprob):
        return rules[Column.PAD_ID], logprob, full, Source.PAD, row.last_phase, []
    token, source = rules.step(row, token)
    if source != Source.SAMPLED:
        logprob, full, ids = 0.0, 0.0, []
    return token, logprob, full, source, row.last_phase, ids


def _sample_row(
    unmasked: Tensor,
    random: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    masked: list[int],
) -> tuple[int, float, float, list[int]]:
    row, ids = unmasked.clone(), []
    row[masked] = -math.inf
    if not (row.amax().isfinite() and unmasked.amax().isfinite()):  # amax of a NaN is NaN
        return 0, math.nan, math.nan, []
    if temperature == 0:
        token, logprob = int(row.argmax()), 0.0
    else:
        mass = distribution(row, temperature, top_k, top_p, min_p)
        total = int(mass.sum())
        target = random * total >> 53
        token = int(torch.searchsorted(mass.cumsum(0), target, right=True))
        logprob = _logprob(row, token, temperature, total)
        if top_k > 0 or top_p < 1 or min_p > 0:
            ids = mass.nonzero()[:, 0].tolist()
    full_temperature = temperature or 1.0
    full = _logprob(unmasked, token, full_temperature, int(weights(unmasked, full_temperature).sum()))
    return token, logprob, full, ids


def _logprob(row: Tensor, token: int, temperature: float, total: int) -> float:
    return (float(row[token]) - float(row.amax())) / temperature - math.log(total / 2.0**_WEIGHT_BITS)
