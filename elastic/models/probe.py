"""Whether two ways of running a model give the same logits, tried on a few tokens.

n positions, V vocabulary. What counts as the same is measured on the model itself: how much its logits change
when an earlier token is another one, and how much by rounding alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd, inf
from typing import Any

import torch
from torch import Tensor, nn

_EFFECT_SHARE = 1e-3  # differences below this share of one token's effect are rounding
# Rounding of 16-bit layers: two orders of summation differ about as much as any two others do.
_NOISE_FACTOR, _MOST_NOISE = 3, 0.3
_EPSILONS = 4  # differences below so many epsilons of the dtype, times the logits' spread, are rounding


@dataclass(frozen=True)
class Scale:
    """How to judge differences of a model's logits: root mean squares of logprobs over the vocabulary.

    Attributes:
        effect: the difference that another token shortly before makes.
        noise: the difference between two shapes of the same forward pass.
        floor: the difference that the dtype cannot resolve.
    """

    effect: float
    noise: float
    floor: float

    @property
    def rounding(self) -> float:
        """Between passes of the same shapes, differences up to this are rounding."""
        return max(self.floor, _EFFECT_SHARE * self.effect)

    @property
    def tolerance(self) -> float:
        """Between passes of any two shapes, differences up to this are rounding."""
        return max(self.rounding, min(_NOISE_FACTOR * self.noise, _MOST_NOISE * self.effect))

    @property
    def causal(self) -> bool:
        """Whether the noise, measured by cutting off later tokens, is small enough to be rounding."""
        return self.noise <= max(self.floor, _MOST_NOISE * self.effect)


def measure(model: nn.Module, row: Sequence[int], length: int) -> Scale:
    """Measures a model on the last positions of a row that is cut to `length`, in three forward passes.

    Args:
        row: token ids.
        length: at least 2 and less than the row has.

    Raises:
        ValueError: logits hold NaN.
    """
    kept = range(max(0, length - 8), length)
    whole, cut = plain_logits(model, row, kept), plain_logits(model, row[:length], kept)
    if whole.isnan().any():
        raise ValueError("its logits hold NaN")
    other = [*row[: length - 2], row[length], *row[length - 1 :]]
    changed = plain_logits(model, other, range(length - 1, length))
    spread = float(_logprobs(whole).std(dim=-1).median())
    floor = _EPSILONS * torch.finfo(_dtype(model)).eps * spread
    return Scale(difference([changed], [whole[-1:]]), difference([cut], [whole]), floor)


def difference(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The largest over rows of the median over positions, so that one token routed to another expert is none.

    Args:
        left, right: of each row, [n, V] logits.

    Returns:
        Root mean square over the vocabulary of the difference of logprobs; infinite where any is NaN.
    """
    largest = 0.0
    for one, other in zip(left, right, strict=True):
        a, b = _logprobs(one), _logprobs(other)
        delta = torch.where(a == b, 0.0, a - b)  # of tokens that are masked in both, too
        value = float(delta.square().mean(dim=-1).sqrt().median())
        largest = max(largest, value if value == value else inf)
    return largest


def plain_logits(model: Any, row: Sequence[int], positions: Sequence[int]) -> Tensor:
    """[n, V] float32: the model's own logits of one sequence, without cache, mask or padding."""
    device = next(model.parameters()).device
    ids = torch.tensor([list(row)], device=device)
    kept = torch.tensor(list(positions), device=device)
    return model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0].float()


def ordinary_tokens(model: Any, count: int) -> list[int]:
    """Token ids spread over the vocabulary, without those that the configuration names (EOS, images, ...)."""
    config = model.config.get_text_config(decoder=True)
    vocab = min(config.vocab_size, model.get_input_embeddings().weight.shape[0])
    special = set(_token_ids(model.config.to_dict()))
    pool = [token for token in range(vocab) if token not in special]
    step = next(step for step in range(int(0.6 * len(pool)) + 1, 2 * len(pool)) if gcd(step, len(pool)) == 1)
    return [pool[(index + 1) * step % len(pool)] for index in range(count)]


def reason_of(error: Exception) -> str:
    """An error of foreign code in one line; running out of memory is raised again."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise error
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _logprobs(logits: Tensor) -> Tensor:
    # In float32 a logprob of -4 is rounded by 2e-7, more than logits of a small spread differ by.
    return logits.double().log_softmax(dim=-1)


def _dtype(model: nn.Module) -> torch.dtype:
    """The coarsest dtype that the forward pass computes in."""
    kind = next(model.parameters()).device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return max(
        (p.dtype for p in model.parameters() if p.is_floating_point()), key=lambda d: torch.finfo(d).eps
    )


def _token_ids(value: Any, name: str = "") -> Iterator[int]:
    """All ids under keys like `image_token_id`, `eos_token_ids` or `boi_token_index`."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _token_ids(part, str(key))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _token_ids(part, name)
    elif isinstance(value, int) and "token_i" in name:
        yield value
