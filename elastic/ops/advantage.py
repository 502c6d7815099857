"""Advantages of groups of completions from their rewards."""

import torch
from torch import Tensor

from elastic.ops._inputs import checked, integer, number, one_of, refuse_unused, small_real

KINDS = ("group", "none", "batch", "rloo", "maxrl", "passk")
KINDS_WITH_EPS = ("group", "batch")


def group_advantage(
    rewards: Tensor,
    group_offsets: Tensor,
    kind: str = "group",
    eps: float | None = None,
    *,
    pass_k: int | None = None,
) -> Tensor:
    """Advantage of every row inside its group; groups may have different sizes.

    With R the rewards of a group of n rows (SPEC section 5):

    | kind | advantage |
    |---|---|
    | `group` | (R - mean) / (std + eps), std with Bessel's correction |
    | `none` | R - mean |
    | `batch` | (R - group mean) / (std of the whole batch + eps) |
    | `rloo` | n / (n - 1) (R - mean) |
    | `maxrl` | (R - mean) / mean, 0 where mean <= 0 |
    | `passk` | below |

    `passk` (Chen et al. 2025, arXiv 2508.10751, section 2.3) is the analytic advantage of training for
    pass@k. With w wrong rows among n (a row is right if its reward is above 0.5), the chance that k of them
    hold a right one is m = 1 - C(w, k) / C(n, k), with deviation s = sqrt(m (1 - m)). A right row gets
    (1 - m) / s, a wrong one (1 - m - C(w-1, k-1) / C(n-1, k-1)) / s; 0 where s = 0. In a group smaller than
    k, k is the group's size.

    A group of one row, or of equal rewards, gives 0. Computed in double, in units of the largest reward, so
    that no size of rewards overflows; deterministic.

    Args:
        rewards: [R], CPU or CUDA; floats, integers or booleans (right is 1). Taken as float32, or on the CPU
            as float64 if that is what they are.
        group_offsets: [K + 1] int64; group k holds rows group_offsets[k] up to group_offsets[k + 1]. Starts
            at 0, ends at R, never decreases; an empty group is allowed.
        kind: one of the table's names.
        eps: added to the standard deviation by `group` and `batch`, 1e-4 if None; None for other kinds.
        pass_k: the k of `passk`, at least 1, 4 if None; None for other kinds.

    Returns:
        [R] float32 (float64 for float64 rewards). Not differentiable: rewards are data.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: wrong shape or device, offsets that do not fit, an unknown kind, eps or pass_k out of
            range or given to a kind that does not read it, or (CPU) a reward that is NaN or infinite. On CUDA
            contents are not read back: such a reward makes its group NaN.
    """
    op = "group_advantage"
    rewards = small_real(op, "rewards", rewards, rewards)
    group_offsets = checked(op, "group_offsets", group_offsets, rewards)
    kind = one_of(*KINDS)(op, "kind", kind)
    if kind not in KINDS_WITH_EPS:
        refuse_unused(op, "eps", eps, f"with kind={kind!r}")
    if kind != "passk":
        refuse_unused(op, "pass_k", pass_k, f"with kind={kind!r}")
    eps = 1e-4 if eps is None else number(op, "eps", eps)
    pass_k = 4 if pass_k is None else integer(op, "pass_k", pass_k)
    return torch.ops.elastic.group_advantage(rewards, group_offsets, kind, eps, pass_k)


@torch.library.register_fake("elastic::group_advantage")
def _(rewards: Tensor, group_offsets: Tensor, kind: str, eps: float, pass_k: int) -> Tensor:
    return torch.empty_like(rewards)
