"""vLLM in this process, with the processor of an engine's rows, and new weights for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from elastic.integrations.vllm.engine_rows import CallRows, RecordedBudgets

# What an engine sets itself.
OWN_OPTIONS = (
    *("model", "tokenizer", "load_format", "logits_processors", "max_num_seqs", "max_model_len"),
    *("additional_config", "speculative_config", "distributed_executor_backend"),
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
)
# The processor and its record are in this process, and the record is kept by the first model runner's.
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that the engine sets itself."""
    for name in OWN_OPTIONS:
        if name in options:
            raise ValueError(f"{name}: expected none, the engine sets it itself; got {options[name]!r}")


def open_llm(rows: CallRows, **options: Any) -> Any:
    """An `LLM` whose requests are rows.

    Args:
        rows: of the engine's calls.
        options: of `vllm.LLM`.
    """
    with _environment():
        from vllm import LLM
        from vllm.v1.sample.logits_processor import LogitsProcessor

        class RowsProcessor(LogitsProcessor):
            """Made by vLLM, which hands no argument of ours on; the rows come with the class."""

            def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
                self._own = RecordedBudgets(rows, device)

            def is_argmax_invariant(self) -> bool:
                return False

            def update_state(self, batch_update: Any) -> None:
                self._own.update_state(batch_update)

            def apply(self, logits: Any) -> Any:
                return self._own.apply(logits)

        return LLM(
            logits_processors=[RowsProcessor],
            max_num_seqs=rows.rows,
            distributed_executor_backend="uni",
            **{"disable_log_stats": True, **options},
        )


def refresh(llm: Any, weights: Mapping[str, Tensor]) -> None:
    """Copies weights into a running vLLM, and drops what it has cached of the old ones.

    Args:
        weights: of a whole checkpoint, by its names; vLLM packs them as when it loads them.
    """
    arguments = {"weights_iterator": iter(weights.items()), "is_checkpoint_format": True}
    llm.collective_rpc("reload_weights", kwargs=arguments)
    llm.apply_model(_repack_heads)
    if not llm.reset_prefix_cache():
        raise RuntimeError("refresh: vLLM kept its prefix cache, which holds keys of the old weights")


def _repack_heads(model: Any) -> None:
    """Makes heads anew whose weight is that of the embeddings: vLLM 0.32 reloads the embeddings alone.

    On a GPU both read the same tensor. On a CPU a head multiplies with a packed copy.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


@contextmanager
def _environment() -> Iterator[None]:
    """What vLLM reads from the environment, while it starts. It says errors alone unless told otherwise."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
