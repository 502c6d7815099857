"""What the reference answers to calls of the loss ops, on exact and on moved inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from elastic import reference

from .call import Call
from .compare import SMALLEST, UNIT, check_near, compute_dtype
from .draw import Draw
from .moved import Move, as_float, as_read, exact_logits, moved_beside, moved_logits, moves, ranks_of

OUTPUTS = ("loss", "logprobs", "entropy", "advantages", "clip_fraction", "kl")
LOGPROBS = ("old_logprobs", "ref_logprobs", "engine_logprobs")
SMALL = (*LOGPROBS, "advantages", "rewards")
GROUPS = ("rewards", "group_offsets", "advantage", "advantage_eps", "pass_k")
# What the reference does not take, or takes in another form.
OWN = ("logits", "hidden", "weight", "bias", "inplace", "chunk_tokens", "gather", "softcap", "temperature")
OVERFLOW = 88.0  # exp of more is infinite in float32
# Beyond half of what float16 holds, the gradient of a chunk of logits may be infinite.
LARGEST_FLOAT16 = 3e4


def check_logprobs(draw: Draw, call: Call) -> None:
    """Makes a call of `token_logprobs` and compares.

    Raises:
        Fault: a result is not the reference's.
    """
    (logprobs, entropy), (gradient,) = call.run_backward()
    logits, targets, temperature, softcap = call.arguments.values()

    def answer(move: Move | None) -> list[Tensor]:
        exact = exact_logits(logits, torch.zeros(len(logits), dtype=torch.bool), temperature, softcap)
        seen, cap = exact, softcap
        if move is not None:
            seen, cap = moved_logits(exact, targets, temperature, softcap, move), None
        outputs = reference.token_logprobs(seen, targets, as_float(temperature), softcap=cap)
        gradients = torch.autograd.grad(outputs, exact, [x.double() for x in call.incoming])
        return [*(x.detach() for x in outputs), *gradients]

    got = {"logprobs": logprobs, "entropy": entropy, "logits": gradient}
    check_all(call, got, answer(None), [answer(move) for move in moves(draw, logits.dtype)])


def check_loss(draw: Draw, call: Call) -> None:
    """Makes a call of `grpo_loss` or `linear_grpo_loss` and compares.

    Raises:
        Fault: a result is not the reference's.
    """
    outputs, gradients = call.run_backward()
    answer = Answer(call)
    exact = answer(None)
    got = dict(zip(OUTPUTS, outputs, strict=True))
    if answer.has_gradient(exact[0]):
        got |= dict(zip(call.leaves, gradients, strict=True))
    check_all(call, got, exact, [answer(move) for move in moves(draw, answer.dtype)])


def check_all(
    call: Call, got: dict[str, Tensor], exact: Sequence[Tensor], moved: Sequence[Sequence[Tensor]]
) -> None:
    """Every output and gradient; `exact` and each of `moved` are in the order of `got`."""
    for i, (name, value) in enumerate(got.items()):
        unit, floor = UNIT[compute_dtype(value.dtype)], torch.tensor(0.0)
        if name in ("loss", "kl") and call.arguments.get("kl") == "k3":  # exp(-q) - 1 + q near q = 0
            floor = floor + 8 * unit * (call.arguments["kl_coef"] if name == "loss" else 1.0)
        if name in call.leaves and call.arguments["softcap"] is not None and value.numel() > 0:
            # The slope 1 - tanh^2 is good to a rounding of 1, not of itself.
            floor = 8 * unit * exact[i].abs().amax(-1, keepdim=True)
        check_near(call, name, value, exact[i], [m[i] for m in moved], floor, name in call.leaves)


class Answer:
    """The reference's outputs and gradients to one call, on inputs that are exact or moved."""

    def __init__(self, call: Call) -> None:
        self.call, self.given = call, call.arguments
        self.dtype = self.given[call.leaves[0]].dtype
        self.unread = self.skipped()
        if "mask" in self.given:
            self.unread = self.unread | ~self.given["mask"]
        self.temperature, self.softcap = self.given["temperature"], self.given["softcap"]
        # Known once the exact inputs were evaluated.
        self.logprobs = self.advantages = torch.zeros(0)
        self.largest_slope = 0.0

    def skipped(self) -> Tensor:
        """[N], where `skip_zero_advantage` leaves a token unread."""
        given, nothing = self.given, torch.zeros(len(self.given["targets"]), dtype=torch.bool)
        wanted = given.get("skip_zero_advantage", False)
        if not wanted or given.get("kl_coef", 0.0) != 0 or given.get("entropy_coef", 0.0) != 0:
            return nothing
        advantages = given.get("advantages")
        if advantages is None:
            groups = {k.removeprefix("advantage_"): v for k, v in given.items() if k in GROUPS}
            advantages = reference.group_advantage(kind=groups.pop("advantage"), **groups)
        return (advantages == 0).repeat_interleave(given["row_offsets"].diff())

    def __call__(self, move: Move | None) -> list[Tensor]:
        logits, leaves = self.logits_and_leaves(move)
        options = {k: v for k, v in self.given.items() if k not in OWN}
        options |= {k: as_read(v, self.dtype) for k, v in options.items() if k in SMALL}
        if move is not None:
            options = self.moved_options(options, move)
        options["temperature"] = as_float(self.temperature)
        options["softcap"] = self.softcap if move is None else None
        output = reference.grpo_loss(logits, **options)
        if move is None:
            self.logprobs, self.advantages = output.logprobs, output.advantages
        incoming = self.call.incoming[0].double()
        gradients = torch.autograd.grad(output.loss, leaves, incoming, materialize_grads=True)
        return [*(x.detach() for x in output), *gradients]

    def logits_and_leaves(self, move: Move | None) -> tuple[Tensor, list[Tensor]]:
        if "logits" in self.given:
            exact = exact_logits(self.given["logits"], self.unread, self.temperature, self.softcap)
            return exact if move is None else self.moved(exact, move), [exact]
        names = [name for name in ("hidden", "weight", "bias") if name in self.given]
        operands = {name: self.given[name].double() for name in names}
        operands["hidden"] = torch.where(self.unread[:, None], 0.0, operands["hidden"])
        leaves = [operands[name].requires_grad_() for name in self.call.leaves]
        logits = linear(*operands.values())
        if move is not None:
            return self.moved(self.moved_products(logits, list(operands.values()), move), move), leaves
        if len(logits) > 0:
            logits.register_hook(self.note_slope)
        return logits, leaves

    def has_gradient(self, loss: Tensor) -> bool:
        """False where a ratio or KL makes the loss infinite, or a chunk's gradient overflows float16."""
        if self.dtype == torch.float16 and self.largest_slope > LARGEST_FLOAT16:
            return False
        ratios = [self.logprobs - self.given["old_logprobs"]]
        if "ref_logprobs" in self.given:
            ratios.append(self.given["ref_logprobs"] - self.logprobs)
        overflows = torch.stack(ratios)[:, ~self.unread] > OVERFLOW
        return bool(loss.isfinite() or not overflows.any())

    def note_slope(self, gradient: Tensor) -> None:
        self.largest_slope = gradient.abs().max().item()

    def moved(self, logits: Tensor, move: Move) -> Tensor:
        return moved_logits(logits, self.given["targets"], self.temperature, self.softcap, move)

    def moved_products(self, logits: Tensor, operands: list[Tensor], move: Move) -> Tensor:
        """Logits are sums of products, rounded to the dtype, and so is their gradient on the way back."""
        narrow = UNIT[self.dtype] / move.unit / 2 if self.dtype.itemsize == 2 else 0.0
        least = SMALLEST[self.dtype] / move.unit * max(1.0, abs(self.call.incoming[0].item()))
        size = linear(*(x.detach().abs() for x in operands))
        ranks = ranks_of(logits, self.given["targets"])
        logits = logits + move.of(size, ranks) + move.of(logits * narrow, ranks)
        logits.register_hook(lambda g: g + move.of(g.abs() * (1 + narrow) + (g != 0) * least))
        return logits

    def moved_options(self, options: dict[str, Any], move: Move) -> dict[str, Any]:
        """Advantages take the place of rewards, which may be as ill-conditioned as one likes."""
        old = options["old_logprobs"]
        moved = {"advantages": self.advantages + move.of(self.advantages)}
        for name in LOGPROBS:
            if name in options:
                other = old if name == "engine_logprobs" else self.logprobs
                moved[name] = moved_beside(options[name], other, move)
        return {k: v for k, v in options.items() if k not in GROUPS} | moved
