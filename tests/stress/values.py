"""Logits, temperatures and logprobs, ordinary ones and those where numbers end."""

import math

import torch
from torch import Tensor

from tests.stress.draw import Draw, laid_out

OFFSETS = (1e2, 1e4, 1e5, 1e7, 1e10, 1e30)
# exp overflows float32 at 88 and float64 at 709. Between the two the dtypes differ by right; differences of
# logprobs are therefore below the first (products of three ratios included) or above the second.
NEAR, FAR = 25.0, (800.0, 3000.0)


def logits_of(draw: Draw, rows: int, vocab: int, dtype: torch.dtype, broken: bool = True) -> Tensor:
    """[rows, vocab] in any layout; `broken`: now and then a row has a NaN, +inf, or nothing but -inf."""
    if draw.chance(0.4):
        values = draw.normal(rows, vocab) * draw.pick(0.1, 1.0, 3.0, 10.0)
    else:
        values = torch.stack([_row(draw, vocab, dtype) for _ in range(rows or 1)])[:rows]
    if broken and rows and draw.chance(0.06):
        row = values[draw.randrange(rows)]
        kind = draw.pick(math.nan, math.inf, -math.inf)
        row[slice(None) if kind == -math.inf else draw.randrange(vocab)] = kind
    most = torch.finfo(dtype).max
    values = torch.where(values.isfinite(), values.clamp(-most, most), values)
    if rows > 1 and vocab > 1 and draw.chance(0.05):  # rows that overlap
        step = draw.randrange(vocab)
        memory = torch.cat([values[0], values[1]]).repeat(rows)[: vocab + step * (rows - 1)]
        return memory.to(dtype).as_strided((rows, vocab), (step, 1))
    return laid_out(draw, values.to(dtype))


def _row(draw: Draw, vocab: int, dtype: torch.dtype) -> Tensor:
    most = torch.finfo(dtype).max
    noise = draw.normal(vocab)
    chosen = draw.uniform_tensor(vocab) < draw.pick(0.05, 0.5, 0.95)
    kind = draw.pick("plain", "plain", "offset", "offset", "holes", "equal", "one", "mixed", "tiny", "steep")
    if kind == "offset":
        return noise * draw.pick(0.0, 1.0, 10.0) + draw.pick(*OFFSETS) * draw.pick(-1, 1)
    if kind == "holes":
        return torch.where(chosen | (noise == noise.max()), noise * 3, -math.inf)
    if kind == "equal":
        return torch.full((vocab,), draw.pick(0.0, 1.0, -3.5, 1e4, most, -most), dtype=torch.float64)
    if kind == "one":
        top = torch.full_like(noise, draw.pick(0.0, -1e4, most))
        return top.masked_fill(noise < noise.max(), -math.inf)
    if kind == "mixed":
        extreme = draw.pick(most, -most, 1e30, -1e30, -1e4)
        return noise.masked_fill(noise > 1, extreme).masked_fill(chosen, draw.pick(extreme, -extreme, 0.0))
    if kind == "tiny":
        return noise * 1e-40
    return noise * (draw.pick(1e2, 1e4) if kind == "steep" else 3.0)


def targets_of(draw: Draw, logits: Tensor) -> Tensor:
    """[rows] ids: any, the likeliest, the least likely."""
    rows, vocab = logits.shape
    targets = draw.integers(vocab, rows)
    for row in range(rows):
        if draw.chance(0.2):
            targets[row] = logits[row].argmax() if draw.chance(0.6) else logits[row].argmin()
    return targets


def temperature_of(draw: Draw, rows: int) -> float | Tensor:
    """One, or [rows]; 1e-3 to 1e3."""

    def one() -> float:
        return draw.pick(1.0, draw.uniform(0.3, 2.0), 10 ** draw.uniform(-3, 3))

    if draw.chance(0.5):
        return 1.0
    if draw.chance(0.6):
        return one()
    return laid_out(draw, torch.tensor([one() for _ in range(rows)], dtype=torch.float32))


def temperature_beside(draw: Draw, lengths: list[int]) -> tuple[float | Tensor, float | Tensor]:
    """As it is given, once or a row or a token, and one or [N] of the same."""
    tokens = sum(lengths)
    value = temperature_of(draw, tokens)
    if isinstance(value, Tensor) or draw.chance(0.8):
        return value, value
    if len(lengths) in (0, tokens) or draw.chance(0.5):
        one = torch.tensor(value, dtype=torch.float32)
        return one, one.item()
    rows = torch.tensor([draw.uniform(0.3, 2.0) for _ in lengths], dtype=torch.float32)
    return rows, rows.repeat_interleave(torch.tensor(lengths))


def softcap_of(draw: Draw, largest: float) -> float | None:
    """One that leaves logits up to `largest` alone, or bounds them to what float32 can tell apart."""
    usual = draw.pick(30.0, 5.0, 10 ** draw.uniform(-3, 4))
    return draw.pick(usual, usual, usual, 1e30 if largest < 1e4 else usual) if draw.chance(0.25) else None


def largest_of(logits: Tensor) -> float:
    """The largest finite magnitude."""
    return logits.nan_to_num(0.0, 0.0, 0.0).abs().max().item() if logits.numel() > 0 else 0.0


def logprobs_beside(
    draw: Draw,
    other: Tensor,
    row_of_token: Tensor,
    coarse: float,
    whole_rows: bool = False,
    above: float = NEAR,
) -> Tensor:
    """[N] float64 near `other`, or further, so that ratios are clipped, or so far that they are 0 or inf.

    Args:
        coarse: beyond this a rounding of a logprob makes any ratio of a near one.
        whole_rows: ratios are means over rows: a row is far as a whole, or not at all.
        above: how far `other` may lie above a near one.
    """
    out = other + 0.4 * draw.normal(len(other))
    far_rows = {r: draw.pick(-1, 1) for r in set(row_of_token.tolist()) if whole_rows and draw.chance(0.05)}
    for i, row in enumerate(row_of_token.tolist()):
        if not other[i].isfinite():
            out[i] = -draw.uniform(0, 20)
        elif other[i] < -coarse:
            side = 1 if whole_rows else draw.pick(-1, 1)
            out[i] = other[i] + side * max(4 * FAR[0], -other[i] / 2)
        elif row in far_rows:
            out[i] = other[i] + far_rows[row] * draw.uniform(*FAR)
        elif draw.chance(0.1):
            out[i] = other[i] + draw.uniform(-above, NEAR)
        elif draw.chance(0.05):
            out[i] = other[i]
        elif draw.chance(0.04) and not whole_rows:
            out[i] = other[i] + draw.pick(-1, 1) * draw.uniform(*FAR)
    return out
