"""Which TRL this room was tested with. What it overrides and reads of GRPOTrainer is not TRL's public API."""

import importlib.metadata

from packaging.version import Version

TESTED = ("1.16.0", "1.17.0")  # from, up to but not including


def check_trl() -> None:
    """Checks that TRL is installed, in a version of `TESTED`.

    Raises:
        ImportError: it is not; says what to install.
    """
    first, end = TESTED
    wanted = f"trl>={first},<{end}"
    try:
        found = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"elastic.integrations.trl needs {wanted}, which is not installed: pip install 'elastic[trl]'"
        ) from error
    if not Version(first) <= Version(found) < Version(end):
        raise ImportError(
            f"elastic.integrations.trl was tested with {wanted}, and TRL {found} is installed: its trainer's "
            f"inner workings may differ; pip install '{wanted}'"
        )
