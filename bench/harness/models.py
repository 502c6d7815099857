"""Models whose sizes the benches use, from their config.json: V vocabulary (rows of the head), H hidden."""

from typing import NamedTuple


class Model(NamedTuple):
    vocab: int
    hidden: int


MODELS = {
    "Qwen2.5-0.5B": Model(151_936, 896),
    "Qwen2.5-1.5B": Model(151_936, 1536),
    "R1-Distill-14B": Model(152_064, 5120),
    "Llama-3.1-8B": Model(128_256, 4096),
}
QWEN, R1, LLAMA = "Qwen2.5-1.5B", "R1-Distill-14B", "Llama-3.1-8B"
SMALLEST = "Qwen2.5-0.5B"


def model_of(vocab: int) -> str | None:
    """The model known by a vocabulary; None for a size that is nobody's."""
    return {MODELS[name].vocab: name for name in (QWEN, R1, LLAMA)}.get(vocab)
