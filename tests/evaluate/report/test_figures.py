"""The PNG exists, is one, and does not change from run to run. What it looks like was looked at."""

from dataclasses import replace
from pathlib import Path

import pytest

from elastic.evaluate import Row
from elastic.evaluate.report.figures import accuracy_figure


def test_the_figure_is_a_png_of_the_stated_size(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    accuracy_figure(rows, path, title="made up")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert (width, height) == (1620, 900)


def test_equal_rows_give_equal_bytes(rows: list[Row], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        accuracy_figure(rows, tmp_path / name, title="made up")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_accuracy_on_cut_thoughts_is_drawn_where_there_are_enough(rows: list[Row], tmp_path: Path) -> None:
    """Half of the thoughts are cut in these rows; with a twentieth there is nothing to draw."""
    few = [replace(row, cut=0.05) for row in rows]
    none = [replace(row, cut=0.0, accuracy_cut=None) for row in rows]
    for name, drawn in (("many", rows), ("few", few), ("none", none)):
        accuracy_figure(drawn, tmp_path / name, title="made up")
    assert (tmp_path / "few").read_bytes() == (tmp_path / "none").read_bytes()
    assert (tmp_path / "few").read_bytes() != (tmp_path / "many").read_bytes()


def test_nothing_but_the_figure_is_left_behind(rows: list[Row], tmp_path: Path) -> None:
    accuracy_figure(rows, tmp_path / "demo.png", title="made up")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def test_a_figure_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must not be empty"):
        accuracy_figure([], tmp_path / "demo.png", title="made up")
    assert not list(tmp_path.iterdir())


def test_several_sets_are_not_drawn_as_one(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must be of one set, got made up, another"):
        accuracy_figure([*rows, replace(rows[0], data="another")], tmp_path / "demo.png", title="made up")
