"""How far a result may be from the exact one.

The exact result is the reference's in float64, on the very values that the op got. An op that computes in
float32 rounds at every step, so it can do no better than to return the exact result of slightly different
inputs. The reference is therefore run again on inputs moved by a few roundings, up and down
(`stress.moved`); what an output moves by then is what it may be off, plus the rounding of the output itself.
An output that does not move has to be met to a few roundings, and one that is 0 every time has to be 0.
Where a nudge of the inputs makes an output infinite (an overflow, a clip's edge), it may be either.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.stress.call import Call, Fault

# float64's is larger: the reference is rounded as often as the op, and more often where it sums long rows.
UNIT = {torch.float64: 2**-44, torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Below these a dtype has no digits; in float32 a few powers of two more, for what is multiplied on the way.
SMALLEST = {torch.float64: 2**-1000, torch.float32: 2**-106, torch.bfloat16: 2**-106, torch.float16: 2**-24}
MOVED = 8  # inputs are moved by this many roundings
CONDITION = 6  # times what the moved inputs do: 48 roundings of the inputs, as the few moves miss the worst
ROUNDINGS = 16  # of the result itself, in the dtype the op computes in


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_near(
    call: Call,
    name: str,
    got: Tensor,
    exact: Tensor,
    moved: Sequence[Tensor],
    floor: Tensor,
    is_gradient: bool = False,
) -> None:
    """NaN and infinities in the same places first, then every element within its own error.

    Args:
        got: what the op returned.
        exact: the reference's result, float64.
        moved: the reference's results on moved inputs, float64.
        floor: absolute error that is allowed besides.
        is_gradient: where a gradient is not finite, the order of products makes it infinite or NaN.

    Raises:
        Fault: naming the worst place.
    """
    if got.shape != exact.shape:
        raise Fault(call, f"{name}: shape {list(got.shape)} instead of {list(exact.shape)}")
    if got.numel() == 0:
        return
    every = torch.stack([exact, *moved])
    rounded = every.to(got.dtype).double()  # beyond the dtype's largest is infinite
    wide = got.double()
    placed = torch.isfinite if is_gradient else _class
    misplaced = torch.stack([placed(x) != placed(wide) for x in rounded]).all(0)
    if misplaced.any():
        _fail(call, name, "", misplaced.double(), wide, exact)
    spread = torch.where(rounded.isfinite(), every - every[0], torch.inf).abs().nan_to_num(torch.inf).amax(0)
    roundings = ROUNDINGS * UNIT[compute_dtype(got.dtype)] + 2 * UNIT[got.dtype] * (got.dtype.itemsize == 2)
    allowed = CONDITION * spread + roundings * exact.abs() + floor + 2 * SMALLEST[got.dtype]
    allowed = torch.where((every == 0).all(0), floor + 2 * SMALLEST[compute_dtype(got.dtype)], allowed)
    off = torch.where(wide.isfinite() & exact.isfinite(), (wide - exact).abs(), 0.0)
    excess = torch.where(off > allowed, off / allowed, 0.0)
    if excess.any():
        worst = int(excess.argmax())
        limit = f", allowed {allowed.flatten()[worst]:.1e}"
        _fail(call, name, f" off by {off.flatten()[worst]:.1e}{limit}", excess, wide, exact)


def _class(x: Tensor) -> Tensor:
    """0 finite, 1 infinity, -1 minus infinity, 2 NaN."""
    return torch.where(x.isnan(), 2.0, torch.where(x.isinf(), x.sign(), 0.0))


def _fail(call: Call, name: str, what: str, badness: Tensor, got: Tensor, exact: Tensor) -> None:
    worst = int(badness.flatten().argmax())
    at = [int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape)]
    have, want = got.flatten()[worst].item(), exact.flatten()[worst].item()
    raise Fault(call, f"{name}{at}: {have!r} instead of {want!r}{what}")
