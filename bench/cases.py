"""Every case there is, in one list for `python -m bench` and `make gpu`, whose sizes are declared here.

N tokens, B rows, V vocabulary, G completions a prompt, H hidden.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bench.harness.case import Case, Variant, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import LLAMA, MODELS, QWEN, R1, SMALLEST
from bench.ops import (
    budget_step,
    decode,
    force_logits,
    grade_answers,
    group_advantage,
    grpo_loss,
    linear_grpo_loss,
    rollout,
    sample,
    sample_rows,
    token_logprobs,
    training_step,
)
from bench.ops.linear_rivals import QUACK as QUACK_CE
from bench.ops.linear_rivals import SCALED_CE
from bench.ops.sample_kinds import KINDS

F32, BF16 = torch.float32, torch.bfloat16
V = MODELS[QWEN].vocab


@dataclass(frozen=True)
class Entry:
    """A case that is yet to be made.

    Attributes:
        op: as `--only` names it.
        make: allocates the inputs.
        weight: its share of the time, beside the others' weights.
        name: tells it from the op's other cases.
    """

    op: str
    make: Callable[[Device], Case]
    weight: float = 1.0
    name: str = ""


def entry(
    op: str, make: Callable[..., Case], *sizes: Any, weight: float = 1.0, of: str = "", **options: Any
) -> Entry:
    """`make(device, *sizes, **options)`, later; `of` tells its name from those of the op's other cases."""
    name = f"{op} {of}" if of else op
    return Entry(op, lambda device: make(device, *sizes, **options), weight, name)


def point(axis: str, at: int, one: Entry, *names: str) -> Entry:
    """An entry as a point of a curve, with the named variants alone."""
    return Entry(one.op, lambda device: one.make(device).on_axis(axis, at, *names), one.weight, one.name)


@dataclass(frozen=True)
class Sizes:
    """What differs between a CPU, a GPU and a dry run.

    Attributes:
        loss, logprobs: N of the logits by dtype.
        sampled: dtypes of the logits that are sampled from. forced: dtype of those that are forced.
        sampled_rows: B of the logits of every kind that are sampled from; none without.
        rows, steps, vocab, group: B of the logits, B of the budget step, V and G.
        linear, linear_dtype: N, H and V of linear_grpo_loss, and their dtype.
        linear_names: its variants, None for all. chunks: its `chunk_tokens`, None for its own.
        wide: N, H and V of a wider head; none without.
        decoder, learner: sizes of the models of rollouts and of the training step.
        requests: of a rollout, as a multiple of the rows.
        whole: size of the model of decode steps and of a whole training step; none of either without.
        decoded: rows of the decode steps, in the order of their worth.
        compiled: those of them that are compiled, too.
        columns, decode_steps: of the decode steps.
        lengths: of the whole training step.
    """

    loss: Mapping[torch.dtype, int]
    logprobs: Mapping[torch.dtype, int]
    sampled: Sequence[torch.dtype]
    forced: torch.dtype
    rows: int
    linear: tuple[int, int, int]
    linear_dtype: torch.dtype
    chunks: tuple[int | None, ...]
    linear_names: tuple[str, ...] | None = None
    wide: tuple[int, int, int] | None = None
    sampled_rows: tuple[int, ...] = ()
    steps: int = 256
    vocab: int = V
    group: int = 8
    decoder: str = "tiny"
    learner: str = "train"
    requests: int = 4
    whole: str | None = None
    decoded: tuple[int, ...] = (64, 1, 256)
    compiled: tuple[int, ...] = (64, 256)
    columns: int = 1024
    decode_steps: int = 64
    lengths: training_step.Lengths = field(default_factory=lambda: training_step.Lengths(256, 100, 700))


# linear_grpo_loss on a CPU: tokens for several chunks, so V and H are cut to what fits into the time and into
# the memory of the ways that hold all logits. `--full` has all of the vocabulary, whose logits are 5 GB and
# eager's intermediates three times that, a chunk at a time, and every way on few tokens of a real head.
LINEAR_CHUNK = 1024
LINEAR_QUICK = ("eager", "TRL chunked head", "three bare products", "elastic")
LINEAR_RIVALS = ("eager", SCALED_CE, QUACK_CE, *LINEAR_QUICK[1:])
LINEAR_CHUNKWISE = ("checkpointed chunks", *LINEAR_QUICK[1:])
CPU = Sizes(
    loss={F32: 256, BF16: 256},
    logprobs={F32: 256},
    sampled=(F32,),
    forced=F32,
    rows=32,
    linear=(8192, 64, 32_768),
    linear_dtype=F32,
    chunks=(LINEAR_CHUNK,),
    linear_names=LINEAR_QUICK,
)
GPU = Sizes(
    loss={BF16: 8192, F32: 2048},
    logprobs={BF16: 8192, F32: 2048},
    sampled=(BF16, F32),
    sampled_rows=(1, 32, 256, 512),
    forced=BF16,
    rows=256,
    linear=(16_384, MODELS[QWEN].hidden, V),
    linear_dtype=BF16,
    chunks=(None, 2048, 4096, 8192),
    wide=(8192, 4096, V),
    whole="1.5B",
)


def tiny(sizes: Sizes) -> Sizes:
    """The same cases and variants on a few elements, to try the commands."""
    return replace(
        sizes,
        loss=dict.fromkeys(sizes.loss, 16),
        logprobs=dict.fromkeys(sizes.logprobs, 16),
        sampled_rows=sizes.sampled_rows and (4,),
        rows=4,
        steps=4,
        linear=(16, 8, 61),
        wide=sizes.wide and (16, 24, 61),
        linear_dtype=F32,
        vocab=302,
        group=2,
        decoder="micro",
        learner="micro",
        requests=1,
        whole=sizes.whole and "micro",
        decoded=(2, 1) if sizes.whole else (),
        compiled=(),  # half a minute
        columns=64,
        decode_steps=8,
        lengths=training_step.Lengths(9, 3, 20),
    )


def ops(sizes: Sizes) -> list[Entry]:
    """Every op against every baseline."""
    b, v = sizes.rows, sizes.vocab
    linear = {"names": sizes.linear_names, "chunks": sizes.chunks}
    return [
        *(
            entry("grpo_loss", grpo_loss.case, n, v, d, of=name_of(d), weight=2)
            for d, n in sizes.loss.items()
        ),
        *(
            entry("token_logprobs", token_logprobs.case, n, v, d, of=name_of(d), weight=2)
            for d, n in sizes.logprobs.items()
        ),
        *(entry("sample", sample.case, b, v, d, of=name_of(d)) for d in sizes.sampled),
        entry("sample", sample.case, b, v, F32, 0.95, of="float32 top_p", weight=2),
        *(
            entry("sample", sample_rows.case, kind, n, v, d, of=f"{name_of(d)} B={n} {kind}", weight=0.5)
            for n in sizes.sampled_rows
            for kind in KINDS
            for d in sizes.sampled
        ),
        entry("force_logits_", force_logits.case, b, v, sizes.forced, weight=0.5),
        entry("group_advantage", group_advantage.case, 64, sizes.group, weight=0.5),
        entry("budget_step_", budget_step.case, sizes.steps, weight=0.5),
        entry(
            "linear_grpo_loss", linear_grpo_loss.case, *sizes.linear, sizes.linear_dtype, weight=8, **linear
        ),
        *wide_head(sizes),
    ]


def wide_head(sizes: Sizes) -> list[Entry]:
    """The linear loss of a wider head, beside its rivals alone."""
    if sizes.wide is None:
        return []
    known = {"names": LINEAR_RIVALS, "chunks": (None,)}
    shape = (*sizes.wide, sizes.linear_dtype)
    return [entry("linear_grpo_loss", linear_grpo_loss.case, *shape, of="wide", weight=2, **known)]


def small_models(sizes: Sizes) -> list[Entry]:
    """Rollouts and a training step of models that a CPU runs in time."""
    rows = min(sizes.rows, 16)
    return [
        entry("rollout", rollout.case, sizes.decoder, rows, multiple=sizes.requests, weight=3),
        entry("training_step", training_step.case, 1, sizes.group, sizes.learner, weight=3),
    ]


def whole_models(sizes: Sizes) -> list[Entry]:
    """Decode steps and a training step of a model of real size, in the order of their worth."""
    if sizes.whole is None:
        return []
    steps = [
        entry(
            *("decode", decode.case, sizes.whole, rows, sizes.columns, sizes.decode_steps),
            compiled=rows in sizes.compiled,
            of=f"B={rows}",
        )
        for rows in sizes.decoded
    ]
    shape = (2, sizes.group, sizes.whole, BF16, sizes.lengths)
    return [*steps[:1], entry("training_step", training_step.case, *shape, of=sizes.whole), *steps[1:]]


def default(sizes: Sizes) -> list[Entry]:
    """What `python -m bench` measures, in five minutes."""
    *short, linear = ops(sizes)
    return [*short, *small_models(sizes), linear]  # what leaves of its share goes to those behind it


def copy(sizes: Sizes) -> Entry:
    """What the device's memory gives; goes first, because shares refer to it."""
    dtype, tokens = next(iter(sizes.loss.items()))
    return entry("copy", copy_case, tokens, sizes.vocab, dtype)


def copy_case(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Case:
    """Bytes read and written by a copy, and in place."""
    source = torch.randn(tokens, vocab, dtype=dtype, device=device.torch)
    target = source.clone()
    variants = [
        Variant("device to device", lambda: lambda _: target.copy_(source)),
        Variant("read + write in place", lambda: lambda _: target.neg_()),
    ]
    return Case("copy", f"N={tokens} V={vocab}", name_of(dtype), variants, bytes=2 * nbytes(source))


def more(sizes: Sizes) -> list[Entry]:
    """Other models, dtypes and lengths."""
    n, b, linear = sizes.loss[F32], sizes.rows, (64, MODELS[SMALLEST].hidden, V)
    chunkwise = {"chunks": (LINEAR_CHUNK,), "names": LINEAR_CHUNKWISE, "baseline": LINEAR_CHUNKWISE[0]}
    return [
        entry("grpo_loss", grpo_loss.case, n, MODELS[R1].vocab, BF16),
        entry("grpo_loss", grpo_loss.case, n, MODELS[LLAMA].vocab, F32),
        entry("token_logprobs", token_logprobs.case, n, V, BF16),
        entry("linear_grpo_loss", linear_grpo_loss.case, *linear, F32, model=SMALLEST, weight=4),
        entry("linear_grpo_loss", linear_grpo_loss.case, 8192, 16, V, F32, **chunkwise, weight=8),
        entry("sample", sample.case, b, MODELS[LLAMA].vocab, BF16, 0.95),
        entry("rollout", rollout.case, "tiny", 64, weight=2),
        entry("rollout", rollout.case, "tiny", 16, "natural", weight=2),
        entry("rollout", rollout.case, "tiny", 16, group=8, weight=2),
        entry("rollout", rollout.case, "small", 16, multiple=2, weight=4),
    ]


def grading(answers: int, programs: int) -> list[Entry]:
    """Grading on all cores, for `python -m bench.grading`; its times are the machine's, not a thread's."""
    return [
        entry("grading", grade_answers.math_case, answers, of="mathematics"),
        entry("grading", grade_answers.code_case, programs, of="programs"),
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
