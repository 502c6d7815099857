"""Which cases `python -m bench` measures, and how it shares its time among them.

The default set has every op at one real size; `--full` adds other models, dtypes and the scaling curves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.harness.case import Case, Outcome, error_of, run_case
from bench.harness.device import Device
from bench.harness.models import LLAMA, MODELS, QWEN, R1, SMALLEST
from bench.ops import (
    budget_step,
    force_logits,
    group_advantage,
    grpo_loss,
    linear_grpo_loss,
    rollout,
    sample,
    token_logprobs,
    training_step,
)

F32, BF16 = torch.float32, torch.bfloat16
LEAST_ROUNDS, MOST_ROUNDS = 3, 31
FIRST_SHARE = 0.6  # of an entry's time; the rest is for measuring again what was unsteady


@dataclass(frozen=True)
class Entry:
    """A case that is yet to be made.

    Attributes:
        op: as `--only` names it.
        make: allocates the inputs.
        weight: its share of the time, beside the others' weights.
    """

    op: str
    make: Callable[[Device], Case]
    weight: float = 1.0


def entry(op: str, make: Callable[..., Case], *sizes: Any, weight: float = 1.0, **options: Any) -> Entry:
    """`make(device, *sizes, **options)`, later."""
    return Entry(op, lambda device: make(device, *sizes, **options), weight)


def point(axis: str, at: int, one: Entry, *names: str) -> Entry:
    """An entry as a point of a curve, with the named variants alone."""
    return Entry(one.op, lambda device: one.make(device).on_axis(axis, at, *names), one.weight)


@dataclass(frozen=True)
class Sizes:
    """What differs between a CPU, a GPU and a dry run.

    Attributes:
        tokens, rows, vocab, group: N, B, V and G.
        linear, linear_dtype: N, H and V of linear_grpo_loss, and their dtype.
        linear_names: its variants, None for all.
        decoder, learner: sizes of the models of rollouts and of the training step.
        requests: of a rollout, as a multiple of the rows.
    """

    tokens: int
    rows: int
    vocab: int
    group: int
    linear: tuple[int, int, int]
    linear_dtype: torch.dtype
    decoder: str
    learner: str
    requests: int = 4
    linear_names: tuple[str, ...] | None = None


V = MODELS[QWEN].vocab
# linear_grpo_loss on a CPU: tokens for several chunks, so V and H are cut to what fits into the time and into
# the memory of the ways that hold all logits. `--full` has all of the vocabulary, whose logits are 5 GB and
# eager's intermediates three times that, a chunk at a time, and every way on few tokens of a real head.
LINEAR_CHUNK = 1024
LINEAR_QUICK = ("eager", "TRL chunked head", "three bare products", "elastic")
LINEAR_CHUNKWISE = ("checkpointed chunks", *LINEAR_QUICK[1:])
CPU = Sizes(256, 32, V, 8, (8192, 64, 32_768), F32, "tiny", "train", linear_names=LINEAR_QUICK)
GPU = Sizes(4096, 256, V, 8, (16_384, MODELS[QWEN].hidden, V), BF16, "tiny", "train")
TINY = Sizes(16, 4, 302, 2, (16, 8, 61), F32, "micro", "micro", requests=1)


def default(sizes: Sizes) -> list[Entry]:
    """Every op against every baseline, in five minutes."""
    n, b, v, g = sizes.tokens, sizes.rows, sizes.vocab, sizes.group
    shape = (*sizes.linear, sizes.linear_dtype)
    chunks = (LINEAR_CHUNK,) if sizes.linear_names else (linear_grpo_loss.DEFAULT_CHUNK,)
    linear = {"names": sizes.linear_names, "chunks": chunks}
    return [
        entry("grpo_loss", grpo_loss.case, n, v, F32, weight=2),
        entry("grpo_loss", grpo_loss.case, n, v, BF16, weight=2),
        entry("token_logprobs", token_logprobs.case, n, v, F32, weight=2),
        entry("sample", sample.case, b, v, F32),
        entry("sample", sample.case, b, v, F32, 0.95, weight=2),
        entry("force_logits_", force_logits.case, b, v, F32, weight=0.5),
        entry("group_advantage", group_advantage.case, 64, g, weight=0.5),
        entry("budget_step_", budget_step.case, 8 * b, weight=0.5),
        entry("rollout", rollout.case, sizes.decoder, min(b, 16), multiple=sizes.requests, weight=3),
        entry("training_step", training_step.case, 1, g, sizes.learner, weight=3),
        entry("linear_grpo_loss", linear_grpo_loss.case, *shape, weight=8, **linear),
    ]


def more(sizes: Sizes) -> list[Entry]:
    """Other models, dtypes and lengths."""
    n, b, linear = sizes.tokens, sizes.rows, (64, MODELS[SMALLEST].hidden, V)
    chunkwise = {"chunks": (LINEAR_CHUNK,), "names": LINEAR_CHUNKWISE, "baseline": LINEAR_CHUNKWISE[0]}
    return [
        entry("grpo_loss", grpo_loss.case, n, MODELS[R1].vocab, BF16),
        entry("grpo_loss", grpo_loss.case, n, MODELS[LLAMA].vocab, F32),
        entry("token_logprobs", token_logprobs.case, n, sizes.vocab, BF16),
        entry("linear_grpo_loss", linear_grpo_loss.case, *linear, F32, model=SMALLEST, weight=4),
        entry("linear_grpo_loss", linear_grpo_loss.case, 8192, 16, V, F32, **chunkwise, weight=8),
        entry("sample", sample.case, b, MODELS[LLAMA].vocab, BF16, 0.95),
        entry("rollout", rollout.case, "tiny", 64, weight=2),
        entry("rollout", rollout.case, "tiny", 16, "natural", weight=2),
        entry("rollout", rollout.case, "tiny", 16, group=8, weight=2),
        entry("rollout", rollout.case, "small", 16, multiple=2, weight=4),
    ]


PAIR = ("eager", "elastic")
METHODS = (rollout.BASELINE, rollout.ENGINE)
# Sizes of each curve, from small to large. Other sizes are small, so that a CPU gets to the large end.
N_CURVE = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
V_CURVE = (2**15, 2**16, 2**17, 2**18)
ROWS_CURVE = (1, 4, 16, 64, 256, 512)
THINKING_CURVE = (32, 128, 512, 2048, 4096)
G_CURVE = (1, 2, 4, 8, 16, 32)


def scaling(points: int | None = None) -> list[Entry]:
    """Time and memory along one size.

    Args:
        points: of each curve, from its small end; None for all.
    """
    curves: list[Entry] = []
    for n in N_CURVE[:points]:
        one = entry("linear_grpo_loss", linear_grpo_loss.case, n, 64, 2048, F32, weight=n / N_CURVE[-1])
        curves.append(point("N", n, one, *PAIR, "TRL chunked head"))
    for v in V_CURVE[:points]:
        one = entry("grpo_loss", grpo_loss.case, 64, v, F32, weight=v / V_CURVE[-1])
        curves.append(point("V", v, one, *PAIR, "elastic, in place"))
    for b in ROWS_CURVE[:points]:
        one = entry(
            "rollout", rollout.case, "tiny", b, multiple=1, names=METHODS, weight=3 * b / ROWS_CURVE[-1]
        )
        curves.append(point("rows", b, one, *METHODS))
    for t in THINKING_CURVE[:points]:
        one = entry("rollout", rollout.by_budget, "tiny", 4, t, METHODS, weight=4 * t / THINKING_CURVE[-1])
        curves.append(point("thinking", t, one, *METHODS))
    for g in G_CURVE[:points]:
        one = entry("training_step", training_step.case, 1, g, "wide", weight=2 * g / G_CURVE[-1])
        curves.append(point("G", g, one, *PAIR))
    return curves


def run(
    entries: Sequence[Entry],
    device: Device,
    seconds: float,
    done: Callable[[Outcome], None],
    rounds: int | None = None,
    without: Sequence[str] = (),
) -> None:
    """Measures one entry after another in the time there is.

    What an entry leaves of its share goes to those after it. Each gets at least `LEAST_ROUNDS` rounds while
    the time lasts; entries that it does not last for are skipped by name.

    Args:
        done: gets each entry's outcome.
        rounds: instead of as many as fit.
        without: names of variants to leave out.
    """
    deadline = time.monotonic() + seconds
    for number, one in enumerate(entries):
        now = time.monotonic()
        if now >= deadline:
            left = {"op": one.op, "shape": "", "dtype": "", "variant": "all", "why": "time was up"}
            done(Outcome(skipped=[left]))
            continue
        share = (deadline - now) * one.weight / sum(e.weight for e in entries[number:])
        first = rounds_until(now + FIRST_SHARE * share, deadline)
        again = 0 if rounds else rounds_left(now + share)
        # Making a case allocates and computes inputs, which may fail, too; see `run_case`.
        try:
            case = one.make(device).without(*without)
            outcome = run_case(case, device, rounds or first, again=again)
        except Exception as error:
            outcome = Outcome(errors=[error_of(Case(one.op, "", "", []), "all", error)])
        done(outcome)
        device.release()


def rounds_until(until: float, deadline: float) -> Callable[[float], int]:
    """How many rounds fit: `LEAST_ROUNDS` also beyond `until`, but none but the first beyond the deadline."""

    def rounds(round_s: float) -> int:
        now, round_s = time.monotonic(), max(round_s, 1e-6)
        wanted = min(MOST_ROUNDS, max(LEAST_ROUNDS, int((until - now) / round_s)))
        return max(1, min(wanted, int((deadline - now) / round_s)))

    return rounds


def rounds_left(until: float) -> Callable[[float], int]:
    """How many rounds of a second measurement fit; none where they would be fewer than `LEAST_ROUNDS`."""

    def rounds(round_s: float) -> int:
        fit = int((until - time.monotonic()) / max(round_s, 1e-6))
        return min(MOST_ROUNDS, fit) if fit >= LEAST_ROUNDS else 0

    return rounds
