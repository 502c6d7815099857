"""The embedded example: a task, a small trained reasoning model, and its reward.

Everything works without a network and on one CPU core. ``load`` gives a standard Hugging Face model.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from elastic.data.files import check_checksums
from elastic.data.sums import problems
from elastic.models.tiny.grading import reward, stated_answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "tiny"  # its name for `elastic.load_model` and in configurations
CHECKPOINT = Path(__file__).parent / "checkpoint"

__all__ = ["CHECKPOINT", "NAME", "checkpoint", "load", "problems", "reward", "stated_answer"]


def load() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The embedded model (float32, CPU, evaluation mode) and its tokenizer.

    `elastic.load_model("tiny", ...)` loads it for another device or dtype.

    Raises:
        FileNotFoundError, ValueError: as of `checkpoint`.
    """
    path = checkpoint()
    # Only here: listing problems or grading needs no transformers.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from elastic.models.quiet import quiet_transformers

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(path)


def checkpoint() -> Path:
    """The directory of the embedded model, checked.

    Raises:
        FileNotFoundError: the package was installed without its checkpoint.
        ValueError: a file of the checkpoint is not the one that was saved; names it.
    """
    if not (CHECKPOINT / "config.json").is_file():
        raise FileNotFoundError(
            f"the embedded model is missing from {CHECKPOINT}; train it: "
            f"python -m elastic.models.tiny.pretrain --out {CHECKPOINT}"
        )
    try:
        check_checksums(CHECKPOINT)
    except ValueError as error:
        raise ValueError(f"the embedded model: {error}; install the package again") from error
    return CHECKPOINT
