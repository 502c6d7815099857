"""A decode step of a whole model in bfloat16: B rows, each about 60 % into its L cache columns.

A figure is one step's: a call of many steps less a call of few, over the steps between, so that the prompt's
prefill and what a call does once are left out. The baseline is transformers' `generate` with a budget
processor; the engine's steps are

    uncaptured    launched from Python one by one
    captured      a CUDA graph each
    compiled      that, with the model's forward through torch.compile

with each attention that is found; uncaptured with the first alone, since launches bound it whatever attends.
The ceiling is what a step must read at the rate of a copy: the weights, and the keys and values that are
there. `outside` is the share of a step that is not the model's: what a step takes on a model that has next to
nothing to do, launched likewise.

Before anything is timed, captured and compiled steps are held to uncaptured ones (`bench.ops.alike`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.harness import random_models
from bench.harness.case import Case, Variant, name_of
from bench.harness.compare import Timing
from bench.harness.device import Device
from bench.ops import alike
from bench.ops.baselines import Request, hf_generate
from bench.ops.engines import CAPTURED, COMPILED, UNCAPTURED, EngineOf, as_asked, engine_of
from bench.ops.rollout import BASELINE, END, EOS, FIRST_WORD, MARKERS, PAD, SAMPLING, START
from bench.ops.traffic import step_bytes
from elastic import Budget, Sampling

ATTENTIONS = ("flash", "flex", "sdpa")  # in the order of their worth
NEXT_TO_NOTHING, NARROW = "all but the model", ", narrow"
COMPILE_S = 50.0  # 30-35 were measured on an H200, and then the case must still be timed
AT_ONCE, NEVER = 60.0, -1e4  # logits that make a token certain or impossible


@dataclass(frozen=True)
class Steps:
    """From `few` to `many` new tokens behind a prompt of 35/64 of the columns.

    Attributes:
        columns: L, which a row's budget may fill up, so that the cache has them all the time.
    """

    columns: int
    few: int
    many: int

    @classmethod
    def of(cls, columns: int, counted: int) -> "Steps":
        few = max(3, counted // 8)
        return cls(columns, few, few + counted)

    @property
    def counted(self) -> int:
        return self.many - self.few

    @property
    def prompt(self) -> int:
        return self.columns * 35 // 64

    def budget(self, tokens: int) -> Budget:
        """Ends a row that draws EOS all the time after `tokens` tokens, though it may need every column.

        Each EOS gives way to one word while there are extensions left; the next closes the thought, and one
        more ends the row.
        """

        def with_solution(solution: int) -> Budget:
            options = {"closing": (END,), "extension": (FIRST_WORD,), "max_extensions": tokens - 2}
            return Budget(1, solution, min_thinking=1, **options)

        most = with_solution(1).max_tokens(MARKERS) or 0
        return with_solution(self.columns - self.prompt - most + 1)


@dataclass
class Job:
    """A model, and the engines that decode with it, by attention and mode."""

    device: Device
    model: Any
    rows: int
    columns: int
    make: EngineOf
    engines: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Or with engines that stand in for those of one."""
        return self.device.is_cuda or self.make is not engine_of

    def engine(self, attention: str, mode: str) -> Any:
        key = attention, mode
        if key not in self.engines:
            name, _, narrow = attention.partition(NARROW)
            model = next_to_nothing(self.model) if narrow else self.model
            self.engines[key] = self.make(model, self.rows, name, mode)
        return self.engines[key]

    def lacks(self, attention: str) -> str:
        """Why an attention cannot be had here; empty where it can."""
        if attention == "flex" and not self.on_gpu:
            return "is compiled for a GPU"
        try:
            self.engine(attention, UNCAPTURED)
        except (ValueError, ImportError) as error:  # it says what the device or its packages lack
            return str(error).split("\n")[0]
        return ""

    never = NEVER  # logit of a token that is not drawn

    def prompt(self, length: int, row: int = 0) -> list[int]:
        words = self.model.config.vocab_size - FIRST_WORD
        return [*(FIRST_WORD + (7 * row + i) % words for i in range(length - 1)), START]

    def set_eos(self, logit: float) -> None:
        """In place, as an optimizer changes weights."""
        for model in [self.model, *(engine.model for engine in self.engines.values())]:
            model.lm_head.bias.data[EOS] = logit


def build(device: Device, size: str) -> Any:
    """A model that draws neither padding nor markers, and EOS always."""
    return with_bias(random_models.build(size, device.torch, torch.bfloat16, eos_token_id=EOS))


def with_bias(model: Any) -> Any:
    bias = torch.zeros(model.config.vocab_size, dtype=model.dtype, device=model.device)
    bias[[PAD, START, END]], bias[EOS] = NEVER, AT_ONCE
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model.eval().requires_grad_(False)


def next_to_nothing(like: Any) -> Any:
    """A model of one narrow layer with as many tokens in its vocabulary and as wide a head."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": like.config.head_dim}
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, **heads}
    config = {**like.config.to_dict(), "layer_types": None, **narrow}
    with torch.device(like.device):
        return with_bias(type(like)(type(like.config)(**config)).to(like.dtype))


def case(
    device: Device,
    size: str,
    rows: int,
    columns: int,
    steps: int = 64,
    compiled: bool = False,
    make: EngineOf = engine_of,
) -> Case:
    """Args:
    size: of `random_models`.
    steps: that fast ways are measured over; slow ones over a quarter.
    compiled: whether to compile, with the first attention that is found.
    make: gives the engines.
    """
    job = Job(device, build(device, size), rows, columns, make)
    fast, slow = Steps.of(columns, steps), Steps.of(columns, max(1, steps // 4))
    variants, found = [by_generate(job, slow)], []
    for attention in ATTENTIONS:
        if why := job.lacks(attention):
            variants.append(Variant(f"elastic {attention}", skip=why))
            continue
        if not found:
            variants.append(by_engine(job, attention, UNCAPTURED, slow))
        found.append(attention)
        # A mask makes it copy keys and values for every head.
        variants.append(by_engine(job, attention, CAPTURED, slow if attention == "sdpa" else fast))
    if compiled and found:
        variants.append(by_engine(job, found[0], COMPILED, fast))
    variants.append(all_but_the_model(job, found[0], fast))
    return Case(
        "decode",
        f"{size} B={rows} columns={columns}",
        name_of(torch.bfloat16),
        variants,
        bytes=step_bytes(job.model, rows, fast.prompt + (fast.few + fast.many) // 2),
        baseline=BASELINE,
        items=rows,
        extra=outside,
    )


def outside(name: str, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """Further values of a row: what all but the model takes, as a share of a step launched likewise."""
    rest = next((key for key in timings if key.startswith(NEXT_TO_NOTHING)), "")
    mode = CAPTURED if name.endswith(COMPILED) else name.rpartition(", ")[2]
    if rest.rpartition(", ")[2] != mode or rest == name:
        return {"steps": 1}
    return {"steps": 1, "outside": min(timings[rest].median_ms()[0] / timings[name].median_ms()[0], 1.0)}


def by_generate(job: Job, steps: Steps) -> Variant:
    def call(tokens: int) -> Callable[[int], list[list[int]]]:
        request = Request(job.prompt(steps.prompt), Budget(tokens - 2, 1, on_eos="stop"))
        options = {"batch_rows": job.rows, "eos_ids": [EOS], "pad_id": PAD}

        def run(number: int) -> list[list[int]]:
            torch.manual_seed(max(number, 0))
            return hf_generate(job.model, [request] * job.rows, MARKERS, SAMPLING, **options)

        return run

    def check(made: list[list[int]]) -> None:
        lengths = sorted({len(tokens) for tokens in made})
        assert lengths == [steps.many], f"expected rows of {steps.many} tokens, got {lengths}"

    return Variant(
        BASELINE,
        lambda: call(steps.many),
        check,
        lambda _: job.set_eos(NEVER),
        repeats=steps.counted,
        lead=lambda: call(steps.few),
    )


def by_engine(job: Job, attention: str, mode: str, steps: Steps) -> Variant:
    def check(lengths: Tensor) -> None:
        assert lengths.eq(steps.many).all(), f"expected rows of {steps.many} tokens, got {lengths.tolist()}"
        if mode != UNCAPTURED:
            alike.hold(job, attention, mode)

    return Variant(
        f"elastic {attention}, {mode}",
        lambda: engine_call(job, attention, mode, steps, steps.many),
        check,
        lambda _: job.set_eos(AT_ONCE),
        repeats=steps.counted,
        lead=lambda: engine_call(job, attention, mode, steps, steps.few),
        skip="" if job.on_gpu or mode == UNCAPTURED else "needs CUDA graphs",
        takes_s=COMPILE_S if mode == COMPILED else 0.0,
    )


def engine_call(job: Job, attention: str, mode: str, steps: Steps, tokens: int) -> Callable[[int], Tensor]:
    engine, prompt, budget = job.engine(attention, mode), job.prompt(steps.prompt), steps.budget(tokens)

    def run(number: int) -> Tensor:
        sampling = Sampling(SAMPLING.temperature, seed=max(number, 0))
        with as_asked():
            return engine.generate([prompt], budget, job.rows, sampling).lengths

    return run


def all_but_the_model(job: Job, attention: str, steps: Steps) -> Variant:
    """The engine on a model that has next to nothing to do, captured where steps are."""
    mode, narrow = CAPTURED if job.device.is_cuda else UNCAPTURED, attention + NARROW
    return Variant(
        f"{NEXT_TO_NOTHING}, {mode}",
        lambda: engine_call(job, narrow, mode, steps, steps.many),
        prepare=lambda _: job.set_eos(AT_ONCE),
        repeats=steps.counted,
        bytes=0,
        floor=True,
        lead=lambda: engine_call(job, narrow, mode, steps, steps.few),
    )
