"""Loads the compiled extension, or says in one line what to run.

Importing this module registers the op library `torch.ops.elastic`.
"""

import importlib
from types import ModuleType

import torch

BUILD_COMMAND = "pip install --no-build-isolation ."


def load_extension() -> ModuleType:
    """Returns `elastic._C`.

    Raises:
        ImportError: the extension was never built, or was built against another torch release; the message
            is one line with the command to run.
    """
    try:
        extension = importlib.import_module("elastic._C")
    except ImportError as error:
        reason = "was not built" if "No module named" in str(error) else f"does not load ({error})"
        raise ImportError(
            f"elastic: the compiled extension {reason}; in the project's folder run: {BUILD_COMMAND}"
        ) from error
    built, running = extension.build_info()["torch"], torch.__version__
    if _release(built) != _release(running):
        raise ImportError(
            f"elastic: the compiled extension was built for torch {built}, this is torch {running}; "
            f"in the project's folder run: {BUILD_COMMAND}"
        )
    return extension


def _release(version: str) -> list[str]:
    """Major and minor: torch's C++ ABI is only stable within a minor release."""
    return version.split("+")[0].split(".")[:2]


_C = load_extension()
