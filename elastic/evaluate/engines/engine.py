"""The protocol that an evaluation needs of an engine, and the engines by name."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from elastic.budget import Budget, Phase
from elastic.budget.markers import Markers
from elastic.evaluate.engines.hf import HFEngine
from elastic.integrations.vllm.engine import VLLMEngine
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.starts import PhaseName
from elastic.sampling import Sampling


class Engine(Protocol):
    """What `RolloutEngine` offers, as far as an evaluation uses it.

    Attributes:
        tokenizer: of the model.
        markers: thinking markers that budgets are enforced with.
        limits: context, vocabulary and end tokens; every prompt is checked against them before the first
            token.
        max_rows: most rows decoded together.
    """

    tokenizer: Any
    markers: Markers
    limits: Limits
    max_rows: int

    def generate(
        self,
        prompts: Sequence[str],
        budget: Budget,
        samples_per_prompt: int = 1,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        *,
        add_special_tokens: bool | None = None,
        phase: Sequence[PhaseName | Phase | None] | None = None,
    ) -> RolloutBatch:
        """Completes every prompt `samples_per_prompt` times, rows numbered prompt by prompt.

        A row's tokens depend on its prompt, budget, sampling and seed alone; see `RolloutEngine.generate`.
        """


ENGINES: dict[str, Callable[..., Any]] = {"own": RolloutEngine, "hf": HFEngine, "vllm": VLLMEngine}


def open_engine(name: str, model: Any, tokenizer: Any, markers: Markers | None = None, **options: Any) -> Any:
    """An engine over a model.

    Args:
        name: a key of `ENGINES`.
        model: a causal Hugging Face model on its device; for vLLM also a path.
        tokenizer: its tokenizer.
        markers: thinking markers; by default those of the vocabulary.
        options: of the engine, such as `max_rows`.

    Raises:
        ValueError: an unknown name, with the known ones; or what the engine refuses.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got '{name}'")
    return ENGINES[name](model, tokenizer, markers, **options)


def engine_name(engine: Any) -> str:
    """The key in `ENGINES` of an engine's class, or the class's own name."""
    return next((name for name, kind in ENGINES.items() if type(engine) is kind), type(engine).__name__)
