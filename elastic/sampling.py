"""Parameters of sampling, and the seeds of a run's rows. The sampling itself is `elastic.ops.sample`."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_MASK64 = 0xFFFFFFFFFFFFFFFF
_MAX_SEED = 2**63 - 1
_MOST_IDS = 2**22  # the largest vocabulary that is sampled from
_SAMPLE_BITS = 32  # problem in the low bits of a row's number, sample above


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn (SPEC section 4). Applied in the order of the fields.

    Attributes:
        temperature: divides the logits; 0 is argmax, the lowest id on ties, and the filters do nothing.
        top_k: keep the k largest logits; 0 keeps all.
        top_p: keep the fewest most probable tokens of the renormalised rest whose mass reaches it; in (0, 1].
        min_p: drop tokens less probable than `min_p` times the most probable one; in [0, 1].
        seed: 0 .. 2^63-1; rows derive their own seeds from it, see `row_seeds`. None, the default, draws
            a new seed at every call of the engine, which records it: `RolloutBatch.run_seed`.
        most_kept: of each token drawn under a filter, record the ids that the filters left, where they are at
            most this many (`RolloutBatch.kept`); the losses take them. 0, the default, records none. The
            largest of a call holds for all its rows.

    Tokens tied at a threshold are all kept.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a field out of its range; the message names field, value and limit.
    """

    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    most_kept: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}: expected a number, got {value!r}")
        for name in ("top_k", "seed", "most_kept"):
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an integer, got {value!r}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature: expected a finite number >= 0, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k: expected 0 (off) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p: expected a number in [0, 1], got {self.min_p}")
        if not 0 <= self.most_kept <= _MOST_IDS:
            raise ValueError(f"most_kept: expected 0 (off) to {_MOST_IDS}, got {self.most_kept}")
        if self.seed is not None and not 0 <= self.seed <= _MAX_SEED:
            raise ValueError(f"seed: expected 0 .. 2^63-1, got {self.seed}")

    def seeded(self) -> Sampling:
        """The same with a seed: its own, or else one drawn from the operating system.

        So no generator whose state a training run saves is advanced.
        """
        return self if self.seed is not None else replace(self, seed=secrets.randbits(63))

    @property
    def filters(self) -> bool:
        """Whether the sampling distribution can differ from the temperature-scaled softmax."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0 or self.temperature == 0

    @property
    def recorded(self) -> int:
        """Ids that the record keeps of a token at most: `most_kept`, or 0 where no filter acts."""
        return self.most_kept if self.filters and self.temperature > 0 else 0


class SampleOutput(NamedTuple):
    """One token per row: what `elastic.ops.sample` and its reference return.

    Attributes:
        tokens: [B] int64, emitted; 0 where the logits are unusable, or padding with a state.
        logprobs: [B] float32, of the token under the distribution it was drawn from (after the filters; 0 at
            temperature 0).
        full_logprobs: [B] float32, of the token under softmax(logits / temperature) over the whole vocabulary
            (softmax(logits) at temperature 0).
        source: [B] uint8 of `Source`; None without a state.
        phase: [B] uint8 of `Phase`, of the token emitted; None without a state.
        kept_ids: [B, K] int32, in a row's first `kept_counts` places the ids that its filters left, in
            ascending order. None unless K was asked for.
        kept_counts: [B] int32, how many: 0 where no filter acts or no token was drawn; above K they are not
            listed. None as `kept_ids`.

    Both logprobs are 0 for a token that was not drawn: forced, padding, or put in place of an EOS. They are
    NaN exactly for rows whose logits are unusable (NaN, +inf, or nothing but -inf). None has a gradient.
    """

    tokens: Tensor
    logprobs: Tensor
    full_logprobs: Tensor
    source: Tensor | None
    phase: Tensor | None
    kept_ids: Tensor | None = None
    kept_counts: Tensor | None = None


def row_seeds(seed: int, rows: int) -> list[int]:
    """Seeds of rows 0 .. rows-1 of a run: splitmix64 of the run's seed and the row's index, 63 bits.

    A row's seed depends on `seed` and its own index only, so adding rows leaves the others alone.
    """
    return [row_seed(seed, row) for row in range(rows)]


def row_seed(seed: int, row: int) -> int:
    """The seed of one row of a run, as `row_seeds` has it."""
    return splitmix64(splitmix64(seed) ^ row) >> 1


def sample_seeds(seed: int, numbers: Iterable[int], samples: int) -> list[int]:
    """A seed per completion of an evaluation: of its seed, the problem's number in its set and the sample's.

    So they are the same under every method and budget (common random numbers), and more samples leave the
    first ones as they are. Sample 0 of problem i has the seed of row i of `row_seeds`.
    """
    return [
        row_seed(seed, sample << _SAMPLE_BITS | number) for number in numbers for sample in range(samples)
    ]


def splitmix64(value: int) -> int:
    """One output of SplitMix64 for a 64-bit state; of longer integers the low 64 bits are used.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (value + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)
