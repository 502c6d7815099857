"""Why an update is not finite, in words."""

from pathlib import Path

import torch
from torch import Tensor

from elastic.train.collect.experience import Experience
from elastic.train.collect.rescue import experience_path, rows_in_words
from elastic.train.update.policy import Policy


def diagnosis(policy: Policy, experience: Experience) -> str:
    """Which weights or rows are not finite, or what else there is to say. Every process must call it.

    Row numbers are those of the saved rollouts.

    Args:
        policy: the trained model as it stands.
        experience: of the whole step.
    """
    broken = [name for name, weight in policy.model.named_parameters() if not weight.isfinite().all()]
    now = policy.logprobs(experience)
    if broken:
        return f"{len(broken)} weights hold NaN or infinity, the first is '{broken[0]}'"
    for what, values in (
        ("logprobs that the model gives now", now),
        ("old logprobs", experience.old_logprobs),
        ("logprobs of the reference", experience.ref_logprobs),
    ):
        rows = [row for row, bad in enumerate(map(_broken, values, experience.mask)) if bad]
        if rows:
            return f"the {what} are not finite in {rows_in_words(rows, len(experience))}"
    ratios = [
        _largest(a - b, m) for a, b, m in zip(now, experience.old_logprobs, experience.mask, strict=True)
    ]
    row = max(range(len(ratios)), key=ratios.__getitem__)
    return (
        "weights and logprobs are finite, so it arises in the loss or in the backward; the largest log-ratio "
        f"of the policies is {ratios[row]:.3g}, in row {row}"
    )


def _broken(values: Tensor, mask: Tensor) -> bool:
    return not bool(values[mask].isfinite().all())


def _largest(values: Tensor, mask: Tensor) -> float:
    return float(values[mask].abs().max()) if bool(mask.any()) else 0.0


def load_experience(output: Path, step: int, process: int) -> Experience:
    """What a failure in the updates of a step left of a process.

    Raises:
        FileNotFoundError: it left nothing.
    """
    path = experience_path(output, step, process)
    if not path.is_file():
        raise FileNotFoundError(f"step {step} did not fail in its updates, there is no {path}")
    return Experience(**torch.load(path, weights_only=True))
