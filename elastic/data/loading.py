"""Problems from files, directories, the Hugging Face hub, and sets known by name.

A row holds the problem under ``problem``, ``prompt`` or ``question`` and the answer under ``answer`` unless
``columns`` says otherwise; docs/data.md has the rules.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elastic.data import sums
from elastic.data.columns import Columns, Row, check_columns, check_kept, within
from elastic.data.filters import Filters
from elastic.data.hub import check_installed, directory_rows, hub_rows
from elastic.data.problem import Problem
from elastic.data.reader import Rows, prompt_text, read_problems
from elastic.data.rows import SUFFIXES, file_rows
from elastic.data.sets import SETS, DataSet

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


class NamedSet(NamedTuple):
    """A generated set. Its prompts are complete; no chat template applies.

    Attributes:
        problems: (count, seed, split) to problems.
        ask: (prompt, kind, N) to the prompt that asks for N tokens; kinds are ``l1-exact`` and ``l1-max``.
        phrases: the set's own words for texts that budgets force: by the key of a closing (``s1``), or by the
            text of an extension (``Wait``).
    """

    problems: Callable[[int, int, str], list[Problem]]
    ask: Callable[[str, str, int], str]
    phrases: Mapping[str, str]


NAMED_SETS = {"tiny": NamedSet(sums.problems, sums.ask, sums.PHRASES)}


def load(
    source: str | Path,
    *,
    count: int | None = None,
    split: str | None = None,
    seed: int = 0,
    columns: Columns | None = None,
    filters: Filters | None = None,
    keep: Sequence[str] = (),
) -> list[Problem]:
    """Loads a named set, a file, a directory, or a set on the Hugging Face hub.

    Args:
        source: a key of `NAMED_SETS` (generated) or of `elastic.data.sets.SETS` (on the hub), a path ending
            in ``.json`` (one list of objects), ``.jsonl`` (one object per line) or ``.parquet``, a directory
            as `save_to_disk` writes it or as a hub's snapshot is laid out, or ``owner/name`` or
            ``owner/name:config`` on the hub.
        count: how many problems, the first ones that the filters keep; None for all. A generated set needs
            it.
        split: of a generated set ``train`` (default), ``validation`` or ``test``; of a set of `SETS` one of
            its parts (default: the first); of a directory or the hub one that it has. A file has none.
        seed: of a generated set's draw; others ignore it.
        columns: where a row has what a problem is made of, for example ``{"prompt": "question", "answer":
            "reward_model.ground_truth"}``; keys are those of `elastic.data.columns.FIELDS`. Adds to and
            replaces what is known of a named set.
        filters: which problems are kept. How many were left out is said in a warning.
        keep: further columns, names or dotted paths, that every row has, for `Problem.columns`; a path is
            called by its last step.

    Raises:
        ValueError: bad content, named by file, row and field: for example several answers, or an id that an
            earlier problem has; ``count`` below 1, missing for a generated set, or more than there are; a
            source without problems, or whose problems are all left out; an unknown ending, split or column;
            a hub that is out of reach.
        FileNotFoundError: no source of that name; lists those near it, and all known ones.
        ModuleNotFoundError: a package of the extra ``data`` is needed and not installed.
    """
    if count is not None and count < 1:
        raise ValueError(f"load: count must be at least 1, got {count}")
    if str(source) in NAMED_SETS:
        if count is None:
            raise ValueError(f"load: the generated set '{source}' needs count")
        if columns or filters or keep:
            raise ValueError(f"load: the generated set '{source}' has neither columns nor filters")
        return NAMED_SETS[str(source)].problems(count, seed, "train" if split is None else split)
    columns = dict(columns or {})
    check_columns(columns)
    check_kept(keep)
    check_source(source)
    known = SETS.get(str(source))
    label = str(source) if known or not Path(source).exists() else Path(source).stem
    read = read_problems(
        _rows(source, split),
        label,
        {"id": (), **known.columns, **columns} if known else columns,
        filters or Filters(),
        incomplete=known is not None and known.incomplete,
        keep=keep,
    )
    problems = list(read)
    kept = " that the filters keep" if filters not in (None, Filters()) else ""
    if not problems:
        raise ValueError(f"{source}: holds no problem{kept}")
    if count is not None and count > len(problems):
        raise ValueError(f"load: count is {count}, but {source} holds {len(problems)} problems{kept}")
    return problems[:count]


def load_prompts(path: str | Path) -> list[str]:
    """The prompts of a file; whatever else its rows hold is not looked at.

    Raises:
        ValueError: as of `load`.
        FileNotFoundError: no such file.
    """
    prompts = [prompt_text(Row(item, where, {})) for where, item in file_rows(check_source(path))]
    if not prompts:
        raise ValueError(f"{path}: holds no problem")
    return prompts


def check_source(source: str | Path) -> Path:
    """The path of a source, after the checks that need no reading and no network.

    Raises:
        FileNotFoundError: no file or directory, no named set, and no name that a hub could have.
        ValueError: a file of an unknown ending.
        ModuleNotFoundError: it is read through `datasets`, which is not installed.
    """
    path, name = Path(source), str(source)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: data files end in {', '.join(SUFFIXES)}, got '{path.suffix}'")
        return path
    on_hub = _HUB_NAME.fullmatch(name) and path.suffix not in SUFFIXES and not name.startswith(".")
    if name in SETS or path.is_dir() or on_hub:
        check_installed(f"data '{name}'")
        return path
    known = [*NAMED_SETS, *SETS]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise FileNotFoundError(
        f"data '{name}' is neither a file nor a directory nor one of the sets: {hint}"
        f"(known: {', '.join(known)})"
    )


def _rows(source: str | Path, split: str | None) -> Rows:
    path, name = Path(source), str(source)
    if name in SETS:
        return _set_rows(name, SETS[name], split)
    if path.is_dir():
        return directory_rows(path, split)
    if not path.is_file():
        hub, _, config = name.partition(":")
        return hub_rows(hub, config or None, split)
    if split is not None:
        raise ValueError(f"load: split is '{split}', but the file {path} has no splits")
    return file_rows(path)


def _set_rows(name: str, known: DataSet, split: str | None) -> Iterator[tuple[str, Any]]:
    if split is not None and split not in known.parts:
        raise ValueError(f"load: the set '{name}' has no split '{split}', only {', '.join(known.parts)}")
    part = known.parts[split or next(iter(known.parts))]
    for config in part.configs or (None,):
        for where, item in hub_rows(known.hub, config, part.split):
            if not part.within or within(item, part.within):
                yield where, item
