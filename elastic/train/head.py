"""The language-model head of a causal model, taken apart from its body.

`linear_grpo_loss` wants hidden states and the head's weight, not logits. Unmodified Hugging Face models give
logits; a hook on the head catches what it is given and hands it no token at all, so that nothing of the size
of the logits comes to be and whatever the model does behind its head does it to an empty tensor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic.train.modes import as_in_rollouts


@dataclass(frozen=True)
class LinearHead:
    """logits = softcap tanh(linear(hidden) / softcap), or without the cap.

    Attributes:
        linear: the model's own module.
        softcap: the model's bound of its logits; None for none.
    """

    linear: nn.Linear
    softcap: float | None

    @classmethod
    def of(cls, model: Any) -> "LinearHead | None":
        """The head of a causal model, or None where logits are not what a plain head gives.

        Checked by running the model on two tokens and comparing, so scaled or otherwise finished logits are
        noticed whatever their model calls it.

        Args:
            model: unwrapped, on its device, its parameters whole (not sharded).
        """
        linear = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if type(linear) is not nn.Linear:  # a subclass (LoRA, quantised) computes something else
            return None
        config: Any = model.config
        head = cls(linear, getattr(config.get_text_config(), "final_logit_softcapping", None))
        ids = torch.arange(2, device=linear.weight.device)[None] % linear.out_features
        seen: list[Tensor] = []
        handle = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with torch.no_grad(), as_in_rollouts(model):  # dropout would draw random numbers
                logits = model(input_ids=ids, use_cache=False).logits
        finally:
            handle.remove()
        if len(seen) != 1:
            return None
        with torch.no_grad():
            expected = head._logits(seen[0])
        tolerance = 1e-5 if logits.dtype == torch.float32 == linear.weight.dtype else 2e-2
        same = logits.shape == expected.shape and torch.allclose(
            logits.float(), expected.float(), rtol=tolerance, atol=tolerance
        )
        return head if same else None

    def hidden(self, model: nn.Module, **inputs: Any) -> Tensor:
        """What the model would give to its head.

        Args:
            model: the one this head is of, or a wrapper of it.
            **inputs: of its forward.

        Returns:
            [1, N, H], in the autograd graph of the model's body.
        """
        with self._caught() as seen:
            model(**inputs)
        (hidden,) = seen
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = nn.functional.linear(hidden, self.linear.weight, self.linear.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @contextmanager
    def _caught(self) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []

        def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0])
            return (inputs[0][:, :0],)

        handle = self.linear.register_forward_pre_hook(catch)
        try:
            yield seen
        finally:
            handle.remove()
