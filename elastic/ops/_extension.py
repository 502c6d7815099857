"""Loads the compiled extension, or says in one line why it cannot and what to run.

Importing this module registers the op library `torch.ops.elastic`.
"""

import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import torch

NAME = "elastic._C"
BUILD_COMMAND = "pip install --no-build-isolation ."
# What makes `import elastic` work in the project's own folder, too.
EDITABLE_COMMAND = "pip install --no-build-isolation --editable ."
FOLDER = Path(__file__).absolute().parent.parent


def load_extension() -> ModuleType:
    """Returns `elastic._C`.

    Raises:
        ImportError: this folder hides the package that was installed; or the extension was never built, or
            for another Python, or against another torch release; or a library that it needs is missing. The
            message is one line with the command to run.
    """
    try:
        extension = importlib.import_module(NAME)
    except ModuleNotFoundError as error:
        if error.name != NAME:
            raise
        raise ImportError(f"elastic: {_why_not_found(FOLDER)}") from error
    except ImportError as error:
        raise ImportError(f"elastic: {_why_not_loaded(str(error))}") from error
    # An editable install elsewhere hands its extension to any folder `elastic` that has none.
    if (place := Path(extension.__file__ or FOLDER / NAME).absolute().parent) != FOLDER:
        raise ImportError(f"elastic: {_shadowing(FOLDER, place)}")
    built, running = extension.build_info()["torch"], torch.__version__
    if _release(built) != _release(running):
        raise ImportError(
            f"elastic: the compiled extension was built for torch {built}, this is torch {running}; "
            f"in the project's folder run: {_command(FOLDER)}"
        )
    return extension


def _why_not_found(folder: Path) -> str:
    """Why Python sees no extension in `folder`, the package's own.

    Python takes the first `elastic` on its path. In a checkout that is the source folder, although the built
    package is installed further behind: nothing is wrong with the build then.
    """
    if hidden := _installed_behind(folder):
        return _shadowing(folder, hidden)
    this = f"_C{EXTENSION_SUFFIXES[0]}"
    if others := sorted(path.name for path in folder.glob("_C.*") if path.suffix in (".so", ".pyd")):
        return (
            f"the compiled extension in {folder} was built for another Python ({', '.join(others)}; this "
            f"one loads {this}); in the project's folder run: {_command(folder)}"
        )
    return f"the compiled extension was not built; in the project's folder run: {_command(folder)}"


def _shadowing(folder: Path, hidden: Path) -> str:
    return (
        f"the source folder {folder}, which has no compiled extension, shadows the package installed in "
        f"{hidden}; run Python in another folder, or in the project's folder run: {EDITABLE_COMMAND}"
    )


def _why_not_loaded(said: str) -> str:
    """Why the extension is there but does not load, from what the dynamic linker said."""
    said = said.splitlines()[0] if said else "no reason given"
    likely = ""
    if "undefined symbol" in said:
        likely = f"; most likely it was built against another torch than this one, {torch.__version__}"
    elif "cannot open shared object file" in said:
        cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU alone"
        likely = (
            f"; a library that it was linked with is missing, torch {torch.__version__} here is built {cuda}"
        )
    return (
        f"the compiled extension does not load ({said}){likely}; "
        f"in the project's folder run: {_command(FOLDER)}"
    )


def _installed_behind(folder: Path) -> Path | None:
    """Another `elastic` on Python's path that has the extension for this Python, if there is one."""
    for entry in sys.path:
        package = Path(entry or ".").absolute() / "elastic"
        if package != folder and any((package / f"_C{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            return package
    return None


def _command(folder: Path) -> str:
    """What to run: for a package that lies in its own project, what builds it there."""
    return EDITABLE_COMMAND if (folder.parent / "setup.py").is_file() else BUILD_COMMAND


def _release(version: str) -> list[str]:
    """Major and minor: torch's C++ ABI is only stable within a minor release."""
    return version.split("+")[0].split(".")[:2]


_C = load_extension()
