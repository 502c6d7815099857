"""What the reference answers to calls of the loss ops, on exact and on moved inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from elastic import reference
from tests.stress.call import Call
from tests.stress.compare import SMALLEST, UNIT, check_near, compute_dtype
from tests.stress.draw import Draw
from tests.stress.moved import (
    Move,
    as_float,
    as_read,
    exact_logits,
    moved_beside,
    moved_logits,
    moves,
    ranks_of,
)

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

    floors: dict[str, Tensor] = {}
    if softcap is not None:
        capped = capped_leaf(logits, torch.zeros(len(logits), dtype=torch.bool), temperature, softcap)
        outputs = reference.token_logprobs(capped, targets, as_float(temperature))
        slopes = torch.autograd.grad(outputs, capped, [x.double() for x in call.incoming])
        floors["logits"] = roundings(logits.dtype) * slopes[0].abs()
    got = {"logprobs": logprobs, "entropy": entropy, "logits": gradient}
    check_all(call, got, answer(None), [answer(move) for move in moves(draw, logits.dtype)], floors)


def check_head_logprobs(draw: Draw, call: Call, temperature: float | Tensor) -> None:
    """Makes a call of `linear_token_logprobs` and compares.

    Raises:
        Fault: a result is not the reference's.
    """
    outputs, gradients = call.run_backward()
    answer = HeadLogprobs(call, temperature)
    exact = answer(None)
    got = dict(zip(("logprobs", "entropy"), outputs, strict=True))
    got |= dict(zip(call.leaves, gradients, strict=True))
    check_all(call, got, exact, [answer(move) for move in moves(draw, answer.dtype)], answer.product_floors())


def check_loss(draw: Draw, call: Call, temperature: float | Tensor) -> None:
    """Makes a call of `grpo_loss` or `linear_grpo_loss` and compares.

    Args:
        temperature: the call's, one or [N].

    Raises:
        Fault: a result is not the reference's.
    """
    outputs, gradients = call.run_backward()
    answer = Answer(call, temperature)
    exact = answer(None)
    got = dict(zip(OUTPUTS, outputs, strict=True))
    if answer.is_open():
        return
    if answer.has_gradient(exact[0]):
        got |= dict(zip(call.leaves, gradients, strict=True))
    check_all(call, got, exact, [answer(move) for move in moves(draw, answer.dtype)], answer.floors())


def check_all(
    call: Call,
    got: dict[str, Tensor],
    exact: Sequence[Tensor],
    moved: Sequence[Sequence[Tensor]],
    floors: dict[str, Tensor],
) -> None:
    """Every output and gradient; `exact` and each of `moved` are in the order of `got`."""
    for i, (name, value) in enumerate(got.items()):
        floor = floors.get(name, torch.tensor(0.0))
        check_near(call, name, value, exact[i], [m[i] for m in moved], floor, name in call.leaves)


def roundings(dtype: torch.dtype) -> float:
    return 16 * UNIT[compute_dtype(dtype)]


def capped_leaf(logits: Tensor, unread: Tensor, temperature: float | Tensor, softcap: float) -> Tensor:
    """Its gradient is what the slope 1 - tanh^2, which is good to a rounding of 1, is multiplied with."""
    exact = exact_logits(logits, unread, temperature, softcap).detach()
    return (softcap * torch.tanh(exact / softcap)).requires_grad_()


class Answer:
    """The reference's outputs and gradients to one call, on inputs that are exact or moved."""

    def __init__(self, call: Call, temperature: float | Tensor) -> None:
        self.call, self.given = call, call.arguments
        self.dtype = self.given[call.leaves[0]].dtype
        self.unread = self.skipped()
        if "mask" in self.given:
            self.unread = self.unread | ~self.given["mask"]
        self.temperature, self.softcap = temperature, self.given["softcap"]
        # Known once the exact inputs were evaluated.
        self.logprobs = self.advantages = torch.zeros(0)
        vocab = len(self.given["weight"]) if "weight" in self.given else 0
        self.slopes = torch.zeros(len(self.unread), vocab).double()  # the gradient of a head's logits

    def skipped(self) -> Tensor:
        """[N], where `skip_zero_advantage` leaves a token unread."""
        given, nothing = self.given, torch.zeros(len(self.given["targets"]), dtype=torch.bool)
        wanted = given.get("skip_zero_advantage", False)
        if not wanted or given.get("kl_coef", 0.0) != 0 or given.get("entropy_coef", 0.0) != 0:
            return nothing
        advantages = given.get("advantages")
        if advantages is None:
            groups = {k.removeprefix("advantage_"): v for k, v in given.items() if k in GROUPS}
            rewards, kind = groups.pop("rewards").double(), groups.pop("advantage")
            advantages = reference.group_advantage(rewards, kind=kind, **groups)
        return (advantages == 0).repeat_interleave(given["row_offsets"].diff())

    def __call__(self, move: Move | None) -> list[Tensor]:
        logits, leaves = self.logits_and_leaves(move)
        softcap = self.softcap if move is None else None
        output = self.loss(logits, softcap, move)
        if move is None:
            self.logprobs, self.advantages = output.logprobs, output.advantages
        return [*(x.detach() for x in output), *self.gradients(output, leaves)]

    def gradients(self, output: reference.GrpoOutput, leaves: list[Tensor]) -> tuple[Tensor, ...]:
        incoming = self.call.incoming[0].double()
        return torch.autograd.grad(output.loss, leaves, incoming, materialize_grads=True)

    def loss(self, logits: Tensor, softcap: float | None, move: Move | None) -> reference.GrpoOutput:
        options = {k: v for k, v in self.given.items() if k not in OWN}
        options |= {k: as_read(v, self.dtype) for k, v in options.items() if k in SMALL}
        if move is not None:
            options = self.moved_options(options, move)
        options["temperature"] = as_float(self.temperature)
        return reference.grpo_loss(logits, softcap=softcap, **options)

    def floors(self) -> dict[str, Tensor]:
        """Absolute errors: k3 near 0, the slope of a softcap, sums of products in the dtype."""
        floors, few = {}, roundings(self.dtype)
        if self.given.get("kl") == "k3":  # exp(-q) - 1 + q
            floors |= {"kl": torch.tensor(few), "loss": torch.tensor(few * self.given["kl_coef"])}
        if "logits" not in self.given:
            return floors | self.product_floors()
        if self.softcap is not None:
            capped = capped_leaf(self.given["logits"], self.unread, self.temperature, self.softcap)
            floors["logits"] = few * self.gradients(self.loss(capped, None, None), [capped])[0].abs()
        return floors

    def product_floors(self) -> dict[str, Tensor]:
        """Of gradients on hidden states and head: each logit's gradient is rounded to the dtype."""
        scale = max([1.0, *(x.abs().max().item() for x in self.call.incoming if x.numel() > 0)])
        error = self.slopes.abs() * (roundings(self.dtype) + 2 * UNIT[self.dtype])
        error = error + (self.slopes != 0) * SMALLEST[self.dtype] * scale
        hidden = torch.where(self.unread[:, None], 0.0, self.given["hidden"].double())
        weight = self.given["weight"].double()
        return {"hidden": error @ weight.abs(), "weight": error.T @ hidden.abs(), "bias": error.sum(0)}

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
            logits.register_hook(self.note)
        return logits, leaves

    def is_open(self) -> bool:
        """An infinite ratio times a KL that is 0 or not by a rounding."""
        if not self.given.get("kl_weighted", False):
            return False
        infinite = self.logprobs - self.given["old_logprobs"] > OVERFLOW
        ref, few = self.given["ref_logprobs"], roundings(self.dtype)
        return bool((infinite & ~self.unread & ((self.logprobs - ref).abs() <= few * (1 + ref.abs()))).any())

    def has_gradient(self, loss: Tensor) -> bool:
        """False where a ratio or KL makes the loss infinite, or a chunk's gradient overflows float16."""
        if self.dtype == torch.float16 and (self.slopes.abs() > LARGEST_FLOAT16).any():
            return False
        ratios = [self.logprobs - self.given["old_logprobs"]]
        if "ref_logprobs" in self.given:
            ratios.append(self.given["ref_logprobs"] - self.logprobs)
        overflows = torch.stack(ratios)[:, ~self.unread] > OVERFLOW
        return bool(loss.isfinite() or not overflows.any())

    def note(self, gradient: Tensor) -> None:
        self.slopes = gradient.detach()

    def moved(self, logits: Tensor, move: Move) -> Tensor:
        return moved_logits(logits, self.given["targets"], self.temperature, self.softcap, move)

    def moved_products(self, logits: Tensor, operands: list[Tensor], move: Move) -> Tensor:
        """Logits are sums of products, rounded to the dtype."""
        narrow = UNIT[self.dtype] / move.unit / 2 if self.dtype.itemsize == 2 else 0.0
        size = linear(*(x.detach().abs() for x in operands))
        ranks = ranks_of(logits, self.given["targets"])
        return logits + move.of(size, ranks) + move.of(logits * narrow, ranks)

    def moved_options(self, options: dict[str, Any], move: Move) -> dict[str, Any]:
        """Advantages take the place of rewards, which may be as ill-conditioned as one likes."""
        old = options["old_logprobs"]
        moved = {"advantages": self.advantages + move.of(self.advantages)}
        for name in LOGPROBS:
            if name in options:
                other = old if name == "engine_logprobs" else self.logprobs
                moved[name] = moved_beside(options[name], other, move)
        return {k: v for k, v in options.items() if k not in GROUPS} | moved


class HeadLogprobs(Answer):
    """The same of `linear_token_logprobs`."""

    def __call__(self, move: Move | None) -> list[Tensor]:
        logits, leaves = self.logits_and_leaves(move)
        softcap = self.softcap if move is None else None
        temperature = as_float(self.temperature)
        outputs = reference.token_logprobs(logits, self.given["targets"], temperature, softcap=softcap)
        incoming = [x.double() for x in self.call.incoming]
        gradients = torch.autograd.grad(outputs, leaves, incoming, materialize_grads=True)
        return [*(x.detach() for x in outputs), *gradients]
