"""The starting model, to which the KL holds the policy."""

import copy
from typing import Any

from torch import Tensor, nn

from elastic.train.collect.experience import Experience
from elastic.train.update.policy import Policy


class Reference:
    """A frozen copy of the starting model, also in a resumed run: made before weights are loaded.

    Args:
        model: the starting model, not wrapped.

    Attributes:
        module: the copy.
    """

    def __init__(self, model: Any) -> None:
        self.module: nn.Module = copy.deepcopy(model).eval().requires_grad_(False)

    def logprobs(self, policy: Policy, experience: Experience) -> list[Tensor]:
        """Logprobs of every row's tokens under the reference, at the policy's temperature."""
        return policy.logprobs(experience, self.module)
