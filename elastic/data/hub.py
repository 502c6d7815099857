"""The rows of data sets on the Hugging Face hub, and of directories that hold such sets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elastic.data.rows import missing_extra


def check_installed(what: str) -> None:
    """Raises ModuleNotFoundError, which names the extra, where `datasets` is not installed."""
    from importlib.util import find_spec

    if find_spec("datasets") is None:
        raise missing_extra("datasets", what)


def hub_rows(name: str, config: str | None, split: str | None) -> Iterator[tuple[str, Any]]:
    """(place for error messages, row) of every row of a set.

    The cache is read first. What is not in it is asked of the hub, once, unless ``HF_HUB_OFFLINE`` is set.

    Args:
        name: the set's id on the hub, ``owner/name``; a directory that holds a copy works, too.
        config: which of its configurations, None for its only one.
        split: None for its only one.

    Raises:
        ValueError: no such set, configuration or split, or the hub is out of reach.
        ModuleNotFoundError: `datasets` is not installed.
    """
    check_installed(f"the set '{name}'")
    import datasets

    from elastic.data.hub_access import brief, hub_obstacle

    def loaded() -> Any:
        return datasets.load_dataset(name, config)

    try:
        with _offline(), _quiet():
            found = loaded()
    except Exception:  # not in the cache, or not whole: of many kinds
        cache = datasets.config.HF_DATASETS_CACHE
        if not os.path.isdir(name) and (obstacle := hub_obstacle()):
            raise ValueError(
                f"the set '{name}' is not in the local cache, and the hub is out of reach ({obstacle}): load "
                f"it once where there is a network and copy the cache ({cache}), or "
                f"download it there (hf download --repo-type dataset {name} --local-dir DIRECTORY) and give "
                "the directory"
            ) from None
        try:
            found = loaded()
        except Exception as error:
            raise ValueError(f"the set '{name}' cannot be read: {brief(error)}") from error
    yield from _split_rows(found, name if config is None else f"{name} ({config})", split)


def directory_rows(path: Path, split: str | None) -> Iterator[tuple[str, Any]]:
    """The rows of a directory as `save_to_disk` writes it, or as a hub's snapshot is laid out.

    Raises:
        ValueError: it holds no set, or not that split.
        ModuleNotFoundError: `datasets` is not installed.
    """
    check_installed(f"the directory {path}")
    import datasets

    from elastic.data.hub_access import brief

    if not any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        yield from hub_rows(str(path), None, split)
        return
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise ValueError(f"{path}: cannot be read: {brief(error)}") from error
    yield from _split_rows(found, str(path), split)


def _split_rows(found: Any, name: str, split: str | None) -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict):
        names = [str(key) for key in found]
        if split is None and len(names) > 1:
            raise ValueError(f"{name}: has the splits {', '.join(names)}; say which with split")
        if split is not None and split not in names:
            raise ValueError(f"{name}: has no split '{split}', only {', '.join(names)}")
        split = split or names[0]
        found = found[split]
    elif split is not None:
        raise ValueError(f"{name}: is one split, so split = '{split}' names none")
    where = f"{name}, {split}" if split else name
    for number, row in enumerate(found):
        yield f"{where} row {number}", row


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` reads its cache alone."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no remarks of `datasets` about its cache."""
    from datasets.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
