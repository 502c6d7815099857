"""A browser for all tests of the page, a tab for each."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elastic.evaluate.report.page import render
from tests.evaluate.report.page import payloads
from tests.evaluate.report.page.browser import Browser, Tab, find


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; without one the test is skipped, or fails where ELASTIC_REQUIRE_BROWSER is 1."""
    program = find()
    if program is None:
        missing = "no Chromium (apt install chromium)"
        if os.environ.get("ELASTIC_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{missing}, and ELASTIC_REQUIRE_BROWSER is 1")
        pytest.skip(missing)
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Callable[..., Tab]]:
    """Renders a payload (by default the full one) and opens it; closing checks that nothing went wrong.

    Whatever a test does: the page makes no complaint and asks for no address but its own file and `data:`.
    """
    tabs: list[Tab] = []
    path = tmp_path / "report.html"

    def open_page(payload: dict[str, Any] | None = None, **settings: Any) -> Tab:
        path.write_text(render(payload or payloads.full()), encoding="utf-8")
        tabs.append(tab := Tab(chromium, **settings))
        tab.open(path)
        return tab

    yield open_page
    for tab in tabs:
        assert tab.complaints() == []
        assert {url for url in tab.requests() if not url.startswith("data:")} == {path.as_uri()}
        tab.close()
