"""Objects of the user's own code, named in a configuration as ``package.module:name``."""

import difflib
from importlib import import_module
from typing import Any


def imported(path: str, key: str) -> Any:
    """The object that an import path names.

    Args:
        path: ``package.module:name``; the module is imported.
        key: ``table.key`` that has it, for errors.

    Raises:
        ValueError: it is no such path, the module cannot be imported, or it has no such name.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ValueError(f"{key}: must be of the form 'package.module:name', got '{path}'")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{key}: '{path}' cannot be imported: {error}") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"{key}: module '{module_name}' has no '{name}'{hint}")
    return getattr(module, name)
