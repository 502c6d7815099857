"""The tables of keys in docs/training.md: `python -m tests.train.page` writes them.

The page says in which order; meanings are from the docstrings of the dataclasses, defaults from their fields.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from inspect import getdoc
from pathlib import Path
from typing import get_type_hints

from elastic.train.config import TrainConfig
from elastic.train.config.schema import Section, toml_value

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
# `<!-- keys: loss.clip_low loss.clip_high -->`; a table's name alone means all its keys that no mark names.
BLOCK = re.compile(r"^<!-- keys: ([^\n]*) -->\n.*?^<!-- end of keys -->$", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(r"^    (\w+): ")


def sections() -> dict[str, type[Section]]:
    """Table name -> its class."""
    hints = get_type_hints(TrainConfig)
    return {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and issubclass(kind, Section)
    }


def keys() -> dict[str, tuple[str, str]]:
    """``table.key`` -> (default, meaning) of every key, both in Markdown."""
    found = {}
    for table, kind in sections().items():
        meanings = dict(attributes(getdoc(kind) or ""))
        for item in fields(kind):
            found[f"{table}.{item.name}"] = (_default(item), meanings[item.name])
    return found


def attributes(doc: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a docstring's section "Attributes", each text in one line of Markdown."""
    name, parts = "", list[str]()
    for line in doc.partition("Attributes:\n")[2].splitlines():
        start = _ATTRIBUTE.match(line)
        if start:
            if name:
                yield name, _markdown(parts)
            name, parts = start[1], []
        parts.append(line[start.end() :] if start else line)
    if name:
        yield name, _markdown(parts)


def written(page: str) -> str:
    """The page with its tables as they should be.

    Raises:
        ValueError: a mark names a key that is not there, or not every key is named exactly once.
    """
    known = keys()
    named = [key for block in BLOCK.finditer(page) for key in block[1].split()]
    placed: list[str] = []

    def table(block: re.Match[str]) -> str:
        chosen = [key for name in block[1].split() for key in _chosen(name, known, named)]
        placed.extend(chosen)
        lines = [f"| `{key}` | {known[key][0]} | {known[key][1]} |" for key in chosen]
        return "\n".join(
            [
                f"<!-- keys: {block[1]} -->",
                "| key | default | |",
                "|---|---|---|",
                *lines,
                "<!-- end of keys -->",
            ]
        )

    page = BLOCK.sub(table, page)
    wrong = sorted(key for key in known if placed.count(key) != 1)
    if wrong:
        raise ValueError(f"{PAGE.name}: must have a place for each key, and one alone: {', '.join(wrong)}")
    return page


def _chosen(name: str, known: dict[str, tuple[str, str]], named: list[str]) -> list[str]:
    if name in sections():
        return [key for key in known if key.startswith(f"{name}.") and key not in named]
    if name not in known:
        raise ValueError(f"{PAGE.name}: no such key or table: {name}")
    return [name]


def _default(item: Field) -> str:
    if item.default is MISSING:
        return "needed"
    if item.default is None:
        return "absent"
    value = list(item.default) if isinstance(item.default, tuple) else item.default
    return f"`{toml_value(value)}`"


def _markdown(parts: list[str]) -> str:
    text = " ".join(part.strip() for part in parts if part.strip())
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(written(PAGE.read_text()))
