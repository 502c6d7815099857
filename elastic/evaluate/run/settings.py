"""What an evaluation's samples depend on: two runs with the same settings write the same file."""

import hashlib
import platform
from typing import Any

import torch
import transformers

_VALUES = 64  # of every weight that a fingerprint looks at


def versions() -> dict[str, str]:
    """Of the package and of what decodes."""
    from elastic import __version__

    return {
        "elastic": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def fingerprint(model: Any) -> str:
    """A hash of a model's weights: names, shapes, dtypes, and 64 values spread over each.

    Cheap at any size. A training step changes nearly every weight, so it changes some of these.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}\n".encode())
        flat = weight.detach().reshape(-1)
        values = flat[:: max(1, len(flat) // _VALUES)][:_VALUES]
        digest.update(values.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def model_facts(engine: Any) -> dict[str, Any]:
    """The model's name, as it was loaded by, and its fingerprint."""
    model = getattr(engine, "model", None)
    if model is None:
        return {"name": str(getattr(engine, "name", type(engine).__name__))}
    return {
        "name": str(getattr(model.config, "_name_or_path", "")) or type(model).__name__,
        "fingerprint": fingerprint(model),
    }


def token_facts(engine: Any) -> dict[str, list[Any]]:
    """The ids that the engine tells phases and ends of rows apart by."""
    markers = engine.markers
    return {
        "start": list(markers.start),
        "end": list(markers.end),
        "ends": [[list(spelling.ids) for spelling in end.spellings] for end in markers.ends],
        "eos": list(engine.limits.eos_ids),
    }


def other_settings(kept: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """What differs between two runs; a model is the same by its fingerprint, wherever it lies."""

    def compared(facts: dict[str, Any]) -> dict[str, Any]:
        model = facts.get("model", {})
        return facts | {"model": model.get("fingerprint", model.get("name"))}

    return differences(compared(kept), compared(settings))


def differences(settings: Any, other: Any, name: str = "") -> list[str]:
    """What differs, as `name: this, that`, keys of inner tables and places in lists joined by dots."""
    if isinstance(settings, list) and isinstance(other, list) and len(settings) == len(other):
        settings, other = (dict(enumerate(values)) for values in (settings, other))
    if isinstance(settings, dict) and isinstance(other, dict):
        return [
            line
            for key in dict.fromkeys([*settings, *other])
            for line in differences(settings.get(key), other.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if settings == other else [f"{name}: {settings!r}, {other!r}"]
