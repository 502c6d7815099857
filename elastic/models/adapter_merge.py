"""An adapted model as a plain one: copies of the adapted weights with the adapter's additions in them."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from elastic.models.adapter import active_adapter, base_of


def merged_copy(model: Any) -> Any:
    """A frozen model without an adapter that computes what an adapted one does, up to rounding.

    It shares the adapted model's tensors, but for the weights that LoRA adds to; those are as of now, and
    `merge` brings them up to date.

    Args:
        model: a `PeftModel`; stays as it is.

    Raises:
        ValueError: the adapter cannot be merged; says why.
    """
    if obstacle := merge_obstacle(model):
        raise ValueError(f"model: cannot be merged with its adapter: {obstacle}")
    base, name = base_of(model), active_adapter(model)
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    plain = copy.deepcopy(base, shared)
    for path, module in list(_adapted(plain)):
        if _is_lora(module):
            own = module.get_base_layer()
            own.weight = nn.Parameter(own.weight.detach().clone(), requires_grad=False)
        else:
            own = module.modules_to_save[name]
        parent, _, child = path.rpartition(".")
        setattr(plain.get_submodule(parent), child, own)
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    merge(model, plain)
    return plain


@torch.no_grad()
def merge(model: Any, plain: nn.Module) -> None:
    """Brings a `merged_copy`, or a rounded copy of one, up to date with the adapter.

    Sums are made in float32 and rounded once, to the copy's dtype.
    """
    name = active_adapter(model)
    for path, module in _adapted(base_of(model)):
        own: Any = plain.get_submodule(path)
        if _is_lora(module):
            weight = module.get_base_layer().weight
            wide = torch.promote_types(weight.dtype, torch.float32)
            own.weight.copy_(weight.to(wide) + module.get_delta_weight(name).to(wide))
        else:
            for target, trained in zip(
                own.parameters(), module.modules_to_save[name].parameters(), strict=True
            ):
                if target is not trained:
                    target.copy_(trained)


def merge_obstacle(model: Any) -> str:
    """Why an adapter cannot be written as weights of a plain model; empty if it can."""
    kind = model.peft_config[active_adapter(model)].peft_type
    if getattr(kind, "value", kind) != "LORA":
        return f"only LoRA is merged, this is {getattr(kind, 'value', kind)}"
    base = base_of(model)
    changed = dict(_adapted(base))
    for path, module in changed.items():
        if not (_is_lora(module) or hasattr(module, "modules_to_save")):
            return f"'{path}' is of type {type(module).__name__}"
        if _is_lora(module):
            weight = getattr(module.get_base_layer(), "weight", None)
            if weight is None or not weight.is_floating_point():
                return f"the weight of '{path}' is quantised"
            if module.lora_variant or any(module.lora_bias.values()):
                return f"'{path}' has more than the two matrices of LoRA"
    owners: dict[int, str] = {}
    for path, module in base.named_modules():
        outer = path.removesuffix(".base_layer").removesuffix(".original_module")
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), outer)
            if other != outer and {other, outer} & changed.keys():
                return f"'{other}' and '{outer}' share a weight, and the adapter changes one of them"
    return ""


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The modules that peft put in place of others, by their paths."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inside = "\0"
    for path, module in model.named_modules():
        if path.startswith(inside):
            continue
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            inside = f"{path}."
            yield path, module


def _is_lora(module: Any) -> bool:
    return hasattr(module, "lora_A")
