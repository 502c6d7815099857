"""The starting model, to which the KL holds the policy."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from elastic.models.adapter import adapter_off, adapter_tensors, adds_nothing, has_adapter
from elastic.models.serving import exclusive
from elastic.train.collect.experience import Experience
from elastic.train.update.policy import Policy


class Reference:
    """The starting model, also in a resumed run: taken before weights are loaded.

    Of a model that is trained whole it is a frozen copy. Where an adapter is trained, its base is there
    already: the reference is the model with the adapter off. An adapter that has been trained before adds
    something at the start; then its starting values are kept, and put in place for the reference's passes.

    Args:
        model: the starting model, not wrapped.

    Attributes:
        module: the copy; None with an adapter.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._start: list[tuple[nn.Parameter, Tensor]] = []
        self.module: nn.Module | None = None
        if not has_adapter(model):
            self.module = copy.deepcopy(model).eval().requires_grad_(False)
        elif not adds_nothing(model):
            self._start = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad]

    @property
    def tensors(self) -> Iterable[tuple[str, Tensor]]:
        """What it consists of besides the base of an adapter; to be read before any update."""
        if self.module is not None:
            return self.module.state_dict().items()
        return adapter_tensors(self._model).items() if self._start else ()

    def logprobs(self, policy: Policy, experience: Experience) -> list[Tensor]:
        """Logprobs of every row's tokens under the reference, at the policy's temperature."""
        if self.module is not None:
            return policy.logprobs(experience, self.module)
        with exclusive(self._model), self._restarted() if self._start else adapter_off(self._model):
            return policy.logprobs(experience)

    @contextmanager
    def _restarted(self) -> Iterator[None]:
        """A block in which the adapter has its starting values."""
        trained = [parameter.data for parameter, _ in self._start]
        try:
            for parameter, start in self._start:
                parameter.data = start
            yield
        finally:
            for (parameter, _), values in zip(self._start, trained, strict=True):
                parameter.data = values
