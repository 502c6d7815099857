"""The PNG exists, is one, and does not change from run to run. What it looks like was looked at."""

from pathlib import Path

import pytest

from elastic.evaluate import Row
from elastic.report.figures import accuracy_figure


def test_the_figure_is_a_png_of_the_stated_size(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    accuracy_figure(rows, path, title="made up")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert (width, height) == (1350, 840)


def test_equal_rows_give_equal_bytes(rows: list[Row], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        accuracy_figure(rows, tmp_path / name, title="made up")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_but_the_figure_is_left_behind(rows: list[Row], tmp_path: Path) -> None:
    accuracy_figure(rows, tmp_path / "demo.png", title="made up")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def test_a_figure_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must not be empty"):
        accuracy_figure([], tmp_path / "demo.png", title="made up")
    assert not list(tmp_path.iterdir())
