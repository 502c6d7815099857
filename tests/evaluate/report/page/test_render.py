"""The file before any browser: what is in it and how text is put there."""

import json
import re

import pytest

from elastic.evaluate.report.page import render
from tests.evaluate.report.page import payloads


def payload_of(page: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)[1]
    )


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!-- <script>", "a\u2028b\u2029", "\ud800", "é漢"]
)
def test_the_payload_comes_back_as_it_went_in(text):
    page = render(payloads.full() | {"title": text, "notes": [text]})
    assert payload_of(page)["notes"] == [text]
    page.encode("utf-8")


def test_text_of_a_model_adds_no_tag():
    plain = render(payloads.full() | {"title": "plain"})
    hostile = render(payloads.full() | {"title": "<b></title><script>x</script>", "notes": ["<img src=x>"]})
    count = re.compile(r"<[a-z/!]", re.I)
    assert len(count.findall(hostile)) == len(count.findall(plain))


def test_a_number_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(
            payloads.full() | {"claims": [{"claim": "c", "outcome": "holds", "low": float("nan"), "high": 1}]}
        )


def test_the_page_names_no_address():
    names = set(re.findall(r"\w+://[^\s\"'`]*", render(payloads.full())))
    assert names == {"http://www.w3.org/2000/svg"}  # the namespace of SVG, which nothing loads


def test_a_dollar_sign_is_a_dollar_sign():
    page = render(payloads.full() | {"title": "$5 for $title", "notes": ["$payload $$"]})
    assert "<title>$5 for $title</title>" in page
    assert payload_of(page)["notes"] == ["$payload $$"]
