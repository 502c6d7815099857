"""Things of one's own code that a configuration names: ``package.module:name`` or ``file.py:name``."""

import difflib
import importlib
import importlib.util
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE_PREFIX = "elastic_own_file_"


def is_path(text: str) -> bool:
    """Whether a text has the form ``package.module:name`` or ``file.py:name``."""
    module, colon, name = text.rpartition(":")
    return bool(colon and module and name)


def load_name(path: str) -> Any:
    """What an import path names.

    Args:
        path: ``package.module:name``, or ``file.py:name`` with a path from the working directory; the
            name may have dots.

    Raises:
        ValueError: no such file or module, an error while it is imported, or no such name in it.
    """
    where, _, name = path.rpartition(":")
    try:
        module = _file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # of the module's own code, so of any kind
        raise ValueError(f"'{path}': {where} cannot be imported: {error!r}") from error
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        near = difflib.get_close_matches(name, [known for known in vars(module) if known[0] != "_"], n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"'{path}': {where} has no '{name}'{hint}") from None


def _file(path: Path) -> ModuleType:
    """The module of a file, which is run once however many of its functions are named."""
    path = path.expanduser().resolve()
    name = _MODULE_PREFIX + str(path)
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as import does, for dataclasses and the like in it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
