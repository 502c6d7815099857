"""docs/evaluation.md: every method and every option is on it."""

import re
from dataclasses import fields
from pathlib import Path

from elastic.budget import CLOSINGS
from elastic.evaluate.methods import METHODS, PolicyOptions

PAGE = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`([^`\n]+)`", PAGE))


def test_the_page_has_every_method_and_no_other() -> None:
    table = PAGE.partition("| method | model |")[2].partition("\n\n")[0]
    first_cells = " ".join(re.findall(r"^\| ([^|]*)\|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == METHODS.keys()


def test_the_page_has_every_option_and_closing() -> None:
    flags = {"notices": "--notice"}
    for field in fields(PolicyOptions):
        assert flags.get(field.name, f"--{field.name.replace('_', '-')}") in PAGE, field.name
    assert CLOSINGS.keys() <= NAMES
