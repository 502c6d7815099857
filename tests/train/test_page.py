"""docs/training.md has every key once, with its default and meaning."""

import pytest

from tests.train import page


def test_the_page_is_what_the_dataclasses_say():
    text = page.PAGE.read_text()
    assert text == page.written(text), "run python -m tests.train.page"


def test_every_key_has_a_meaning():
    assert [key for key, (_, meaning) in page.keys().items() if not meaning.strip()] == []


def test_a_text_over_several_lines_is_one():
    doc = "A table.\n\nAttributes:\n    one: first\n        half | ``x``.\n    two: second.\n"
    assert dict(page.attributes(doc)) == {"one": "first half \\| `x`.", "two": "second."}


@pytest.mark.parametrize("change", ["<!-- keys: optim -->\n<!-- end of keys -->\n", None])
def test_a_key_with_two_places_or_none_is_refused(change):
    text = page.PAGE.read_text()
    text = text + change if change else page.BLOCK.sub("", text, count=1)
    with pytest.raises(ValueError, match="must have a place for each key"):
        page.written(text)


def test_a_mark_with_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r"no such key or table: loss\.clip"):
        page.written("<!-- keys: loss.clip -->\n<!-- end of keys -->\n")
