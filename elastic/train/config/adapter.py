"""The table of a training configuration for adapters: LoRA (arXiv 2106.09685) through peft."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

from elastic.train.config.schema import Section, limited


@dataclass(frozen=True)
class AdapterConfig(Section):
    """``[adapter]``: train a low-rank addition to some weights instead of the weights.

    There is no dropout: updates run without it, as rollouts do.

    Attributes:
        rank: r of the addition B A to a weight, B [out, r], A [r, in]; 0 trains the model itself, or the
            adapter that it comes with.
        alpha: the addition is scaled by alpha / rank.
        use_rslora: by alpha / sqrt(rank) instead (arXiv 2312.03732).
        target_modules: names of the modules that get one, as peft takes them: ``["q_proj", "v_proj"]``; or
            ``all-linear``, every linear module but the head.
        dtype: of the adapter's weights; the model's own may be of any (``model.dtype``).
        rollouts: what decodes: ``adapter``, the trained modules themselves; or ``merged``, a copy of the
            adapted weights with the addition in them: faster, but it takes their memory again, and 16-bit
            weights are rounded once more. Rollouts by vLLM are always merged.
        merge: ``final/`` holds the merged model; else the adapter alone.
    """

    TABLE: ClassVar[str] = "adapter"

    rank: int = limited(0, low=0)
    alpha: int = limited(32, low=1)
    use_rslora: bool = False
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    dtype: Literal["float32", "bfloat16"] = "float32"
    rollouts: Literal["adapter", "merged"] = "adapter"
    merge: bool = False

    def check(self) -> None:
        if self.target_modules == ():
            raise ValueError("adapter.target_modules: must name at least one module, got []")

    def check_available(self) -> None:
        """Raises ModuleNotFoundError where an adapter is asked for and peft is not installed."""
        if self.rank and find_spec("peft") is None:
            raise ModuleNotFoundError("adapter.rank: LoRA needs peft: pip install elastic[lora]")
