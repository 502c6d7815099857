"""The language-model head of a causal model, taken apart from its body.

`linear_grpo_loss` takes hidden states and the head's weight, but Hugging Face models return logits. So a hook
on the head keeps the head's input and passes on a tensor without tokens: no tensor of the size of the logits
is made, and whatever the model does behind its head is done to an empty one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic.models.modes import as_in_rollouts
from elastic.models.sharding import is_sharded


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
    def of(cls, model: Any, *, required: str = "") -> "LinearHead | None":
        """The head of a causal model, or None where the logits are not those of a plain head.

        Checked by running the model on two tokens, which reveals logits that are scaled or changed in another
        way. An adapter that adds nothing yet shows by its parameters in the graph. A model whose forward runs
        under autocast must be checked under it.

        Args:
            model: unwrapped, on its device, its parameters whole (not sharded).
            required: what asks for such a head, for the error that is then raised instead of returning None.

        Raises:
            ValueError: required, and there is no such head; says why.
        """
        linear: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        found = _obstacle_at(model, linear)
        if not found:
            head = cls(linear, getattr(model.config.get_text_config(), "final_logit_softcapping", None))
            found = head._difference(model)
            if not found:
                return head
        if required:
            raise ValueError(
                f"{required} needs a model whose logits are those of a plain linear head, soft-capped "
                f"at most; got {type(model).__name__}: {found}"
            )
        return None

    def _difference(self, model: Any) -> str:
        """How the model's logits differ from this head's, in words; empty where they agree."""
        ids = torch.arange(2, device=self.linear.weight.device)[None] % self.linear.out_features
        seen: list[Tensor] = []

        def cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0].detach().requires_grad_())
            return (seen[-1],)

        handle = self.linear.register_forward_pre_hook(cut)
        try:
            with torch.enable_grad(), as_in_rollouts(model):  # dropout would draw random numbers
                logits = model(input_ids=ids, use_cache=False).logits
        finally:
            handle.remove()
        if len(seen) != 1:
            return f"a forward pass calls the head {len(seen)} times"
        known = {id(seen[0]), *map(id, self.linear.parameters(recurse=False))}
        if any(id(leaf) not in known for leaf in _leaves(logits)):
            return "its logits depend on further parameters behind the head's input"
        with torch.no_grad():
            expected = self._logits(seen[0])
        # Autocast's bfloat16 logits may have been widened again by the model's wrapper.
        exact = torch.float32 == logits.dtype == expected.dtype == self.linear.weight.dtype
        tolerance = 1e-5 if exact else 2e-2
        same = logits.shape == expected.shape and torch.allclose(
            logits.detach().float(), expected.float(), rtol=tolerance, atol=tolerance
        )
        return "" if same else "its logits are not those of the head's weight, bias and soft cap"

    def hidden(self, model: nn.Module, **inputs: Any) -> Tensor:
        """The hidden states that the model gives to its head.

        Args:
            model: the model of this head, or a wrapper of it.
            **inputs: the arguments of its forward.

        Returns:
            [1, N, H], in the autograd graph of the model's body.
        """
        sharded = is_sharded(getattr(model, "module", model))
        with self._caught(sharded) as seen:
            output = model(**inputs)
        (hidden,) = seen
        if not sharded:
            return hidden
        # Its parameters are gathered for the backward pass when a gradient comes to its outputs.
        joined: Tensor = _Joined.apply(hidden, output.logits)
        return joined

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = nn.functional.linear(hidden, self.linear.weight, self.linear.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @contextmanager
    def _caught(self, sharded: bool) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []

        def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0])
            return (inputs[0][:, :0],)

        def pass_on(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # From the hidden states alone: by `_Joined` the weight would get zeros, as many as it has values.
            return inputs[0][..., :1].to(output.dtype).expand_as(output).clone()

        handles = [self.linear.register_forward_pre_hook(catch)]
        # Not where DDP looks for unused parameters: those behind its outputs; the loss uses the weight.
        if sharded:
            handles.append(self.linear.register_forward_hook(pass_on))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


class _Joined(torch.autograd.Function):
    """Hidden states, whose gradient also brings an empty one to the model's outputs."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (logits,) = ctx.saved_tensors
        return grad, torch.zeros_like(logits)


def _obstacle_at(model: nn.Module, linear: Any) -> str:
    """Why the head's module may compute more than a product with its weight; empty for no reason."""
    if type(linear) is not nn.Linear:  # a subclass (LoRA, quantised, parametrised) computes something else
        return f"its head is of type {type(linear).__name__}, not torch.nn.Linear"
    if "forward" in vars(linear):
        return "the forward method of its head was replaced"
    # The forward under the hook calls them too, but what they set (weight norm's weight) is not trained.
    if linear._forward_pre_hooks or nn.modules.module._global_forward_pre_hooks:
        return "its head has forward pre-hooks"
    if linear._backward_hooks or linear._backward_pre_hooks:
        return "its head has backward hooks"
    # Hooks of a module around the head would be given the logits.
    around = [module for module in model.modules() if any(child is linear for child in module.modules())]
    if nn.modules.module._global_forward_hooks or any(module._forward_hooks for module in around):
        return "its head, or a module that the head is part of, has forward hooks"
    return ""


def _leaves(output: Tensor) -> list[Tensor]:
    """The leaf tensors that a result's gradient flows back to."""
    found, seen, waiting = [], set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found
