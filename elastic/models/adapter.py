"""Adapters of peft around a model: what is told of them, switched off, and added.

A `PeftModel` holds the base model with some modules replaced: a LoRA layer keeps the module it replaced and
adds scaling * B A x to its output.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NAMES_SHOWN = 12
# Parts of an adapted module's name that belong to the adapter; besides these, what begins as its kind does.
_OF_ADAPTERS = {"modules_to_save", "token_adapter"}


def has_adapter(model: Any) -> bool:
    """Whether a model is a `PeftModel`."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def base_of(model: Any) -> Any:
    """The model inside an adapter, its adapted modules in place; a model without an adapter itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def active_adapter(model: Any) -> str:
    """The name of the one adapter that a forward pass applies.

    Raises:
        ValueError: several are active.
    """
    names = list(model.active_adapters)
    if len(names) != 1:
        raise ValueError(f"model: must have one active adapter, got {len(names)}: {', '.join(names)}")
    return str(names[0])


def adapter_tensors(model: Any) -> dict[str, Tensor]:
    """The active adapter's own tensors, under the names that peft stores them by."""
    from peft import get_peft_model_state_dict

    # Embeddings that an adapter targets are the base's; "auto" would look the base up on the hub.
    found: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=active_adapter(model), save_embedding_layers=False
    )
    return found


def base_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The base model's tensors under the names that they have without an adapter."""
    kind = model.base_model.prefix  # "lora_"
    for name, tensor in base_of(model).state_dict().items():
        parts = name.split(".")
        if not any(part.startswith(kind) or part in _OF_ADAPTERS for part in parts):
            yield ".".join(part for part in parts if part not in ("base_layer", "original_module")), tensor


def adds_nothing(model: Any) -> bool:
    """Whether the adapter's additions are exactly zero: LoRA as it is made, with B (or A) of zeros."""
    zero: dict[str, bool] = {}
    for name, tensor in adapter_tensors(model).items():
        module, found, kind = name.partition(".lora_")
        if not found or kind.removesuffix(".weight") not in ("A", "B", "embedding_A", "embedding_B"):
            return False  # trained modules, biases, magnitudes: not additions
        zero[module] = zero.get(module, False) or not tensor.any()
    return all(zero.values())


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """A block in which the model computes as its base. The caller holds the model (`serving.exclusive`)."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, requires_grad in trained:  # switched on again, an adapter would be trained whole
            parameter.requires_grad_(requires_grad)


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: int,
    target_modules: str | Sequence[str],
    use_rslora: bool,
    dtype: torch.dtype,
    seed: int,
) -> Any:
    """A `PeftModel` around a model; only the adapter is trained. B is zero, so it adds nothing yet.

    Args:
        model: changed in place: targeted modules are replaced, and its own parameters frozen.
        rank, alpha, target_modules, use_rslora: of `peft.LoraConfig`, where rank is r.
        dtype: of the adapter's parameters.
        seed: of A's values. The global generator stays as it is.

    Raises:
        ValueError: a target that the model has no module for; names those it has.
    """
    from peft import LoraConfig

    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    if isinstance(targets, list):
        _check_targets(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        use_rslora=use_rslora,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = wrap(model, config, seed)
    except ValueError as error:  # a module of a kind that LoRA has no layer for
        raise ValueError(f"adapter.target_modules: {error}") from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return adapted


def wrap(model: Any, config: Any, seed: int = 0) -> Any:
    """`peft.get_peft_model`, with random values from a seed, and the model's modes as they are."""
    from peft import get_peft_model

    modes = [(module, module.training) for module in model.modules()]
    config.base_model_name_or_path = getattr(model, "name_or_path", None) or None
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # peft draws on the CPU
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, for a name that peft uses
        torch.default_generator.manual_seed(seed)
        adapted: Any = get_peft_model(model, config)
    adapted.train(model.training)
    for module, mode in modes:
        module.training = mode
    return adapted


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing:
        linear = {
            name.rpartition(".")[2]: None for name, m in model.named_modules() if isinstance(m, nn.Linear)
        }
        has = list(linear)[:_NAMES_SHOWN]
        more = f" and {len(linear) - len(has)} more" if len(linear) > len(has) else ""
        raise ValueError(
            f"adapter.target_modules: the model has no module {missing[0]!r}; its linear modules are "
            f"{', '.join(has)}{more}"
        )


def check_trainable(model: Any) -> None:
    """Refuses adapters that rollouts, updates or checkpoints do not serve.

    Args:
        model: a `PeftModel`.

    Raises:
        ValueError: virtual tokens instead of an adapter, several active adapters, one that is switched off or
            merged, none that is trained, or a trained parameter that is not stored with the adapter.
    """
    name = active_adapter(model)
    if model.peft_config[name].is_prompt_learning:
        kind = str(model.peft_config[name].peft_type).rpartition(".")[2]
        raise ValueError(
            f"model: adapters must change modules, got {kind}, which puts virtual tokens in front"
        )
    status = model.get_model_status()
    if status.enabled is not True or status.merged_adapters:
        state = "is switched off" if status.enabled is not True else "is merged into the weights"
        raise ValueError(f"model: the adapter '{name}' {state}; switch it on, unmerged")
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(
            f"model: no parameter of the adapter '{name}' is trained; load it with is_trainable=True"
        )
    stored = {tensor.data_ptr() for tensor in adapter_tensors(model).values()}
    others = [n for n, p in trained.items() if p.data_ptr() not in stored]
    if others:
        raise ValueError(
            f"model: {len(others)} trained parameters are not part of the adapter '{name}', with which "
            f"checkpoints are made: '{others[0]}'; freeze them, or name their modules in modules_to_save"
        )
