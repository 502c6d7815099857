"""Whether the policy that an update trains is the one that drew its tokens, for any small model.

Rows of different lengths are drawn under budgets: forced tokens, cuts, prompts shared by four rows, top-p
with kept sets. Then the trainer's own code computes the first update, whose metrics say how far the two are
apart.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from elastic import Budget, RolloutEngine, Sampling
from elastic.models.adapter import add_lora
from elastic.models.rollout_model import RolloutModel
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.update.policy import Policy
from elastic.train.update.proof import packs
from elastic.train.update.reference import Reference
from elastic.train.update.stats import UpdateStats

PROMPTS = tuple(
    (*words, IDS["<think>"]) for words in ((51, 52, 53), (61, 62, 63, 64, 65, 66, 67, 68, 69, 70), (42, 52))
)
BUDGETS = (Budget(9, 4), Budget(3, 7), Budget(14, 2))
SAMPLES = 4
SAMPLING = Sampling(0.8, top_k=20, top_p=0.9, seed=4, most_kept=64)
WINDOW = 16  # where a model has one; rows have up to 30 tokens


@dataclass(frozen=True)
class Precision:
    """What weights and updates are computed in.

    Attributes:
        weights: dtype of the model's.
        mixed_precision: as of ``[train]``; bf16 rolls out on a 16-bit copy.
        most: mean |log ratio| that rounding explains: random weights make logits far apart, and in 16 bits a
            router may send a token to another expert. A fault of positions or masks makes 0.3 and more.
        adapter: LoRA on all linear layers: ``new``, which adds nothing yet, or ``trained`` before.
    """

    weights: torch.dtype
    mixed_precision: str
    most: float
    adapter: Literal["none", "new", "trained"] = "none"


PRECISIONS = {
    "float32": Precision(torch.float32, "no", 2e-6),
    "bf16": Precision(torch.float32, "bf16", 0.06),
    "bfloat16": Precision(torch.bfloat16, "no", 0.06),
    "float16": Precision(torch.float16, "no", 0.01),
    "float32 with LoRA": Precision(torch.float32, "no", 2e-6, "new"),
    "bfloat16 with trained LoRA": Precision(torch.bfloat16, "no", 0.06, "trained"),
}
# The mask of its attention is learned, so that SDPA takes another kernel where gradients are on.
ROUNDED = ("doge",)
# Its router is a linear layer that gives a tuple, which peft's layer around it cannot take.
NOT_WITH_LORA = ("phimoe",)
NOT_IN_16_BITS = ("xglm",)  # its positions stay in float32: its forward pass fails, so it is refused


def first_update(model: Any, precision: Precision) -> dict[str, float]:
    """The metrics of a first update whose old and reference logprobs were computed by the trainer.

    Args:
        model: float32, not wrapped; changed.
        precision: of weights and updates.

    Raises:
        ValueError: the model can be decoded or trained not at all in this precision.
    """
    model.to(precision.weights)
    if precision.adapter != "none":
        model = with_lora(model, precision.adapter == "trained")
    AcceleratorState._reset_state()  # it keeps one precision a process
    accelerator = Accelerator(mixed_precision=precision.mixed_precision, cpu=True)
    rollouts = RolloutModel(model, precision.mixed_precision)
    rollouts.sync()
    packs(model)
    engine = RolloutEngine(rollouts.module, build_tokenizer(), max_rows=5, progress=False)
    batch = engine.generate(PROMPTS, list(BUDGETS), SAMPLES, SAMPLING)
    advantages = torch.linspace(-1, 1, len(batch))
    experience = Experience.from_rollout(batch, advantages)
    reference = Reference(model)
    loss = LossConfig(kl_coef=0.1)
    policy = Policy(
        accelerator.prepare(model),
        accelerator,
        loss,
        temperature=SAMPLING.temperature,
        max_length=None,
        accumulation_steps=2,
    )
    experience = replace(
        experience,
        old_logprobs=policy.logprobs(experience),
        ref_logprobs=reference.logprobs(policy, experience),
    )
    stats = UpdateStats()
    policy.backward(experience, experience.loss_tokens, experience.loss_rows, stats)
    stats.updates = 1
    return stats.means(accelerator, with_kl=True)


def with_lora(model: Any, trained: bool) -> Any:
    """An adapter of float32 weights around a model, which adds something if it is trained."""
    options: dict[str, Any] = {"rank": 4, "alpha": 8, "target_modules": "all-linear", "use_rslora": False}
    adapted = add_lora(model, **options, dtype=torch.float32, seed=0)
    if trained:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.02, generator=generator)
    return adapted


def wrong(name: str, precision: str, metrics: dict[str, float]) -> str:
    """What is more than rounding, or not exactly nothing where it must be; empty for nothing."""
    found = []
    if not metrics["mismatch_abs"] <= PRECISIONS[precision].most:
        found.append(f"mismatch_abs {metrics['mismatch_abs']:.2g}")
    if name not in ROUNDED:
        found += [f"{key} {metrics[key]:.2g}" for key in ("update_kl", "kl") if metrics[key] != 0]
    return f"{precision}: {', '.join(found)}" if found else ""
