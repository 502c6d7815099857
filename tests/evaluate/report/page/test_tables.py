"""Tables: values as written, and sorting."""

from tests.evaluate.report.page import payloads

COLUMN = "#table tbody td:nth-child({})"


def test_values_are_written_by_their_kind(opened):
    tab = opened()
    row = tab.texts("#table tbody tr:first-child td")
    assert row[:2] == ["8 + 16", "vanilla: one cap, cut hard"]
    assert row[2:] == ["6.6 %", "2.6 %", "10.6 %", "16.8", "0.8", "16", "–"]


def test_clicks_sort_numbers_down_then_up(opened):
    tab = opened()
    head = "#table th:nth-child(3)"
    tab.click(f"{head} button")
    assert tab.texts(COLUMN.format(3))[:2] == ["98.0 %", "98.0 %"]
    assert tab.run(f"document.querySelector('{head}').ariaSort") == "descending"
    tab.click(f"{head} button")
    assert tab.texts(COLUMN.format(3))[0] == "6.6 %"
    assert tab.run(f"document.querySelector('{head}').ariaSort") == "ascending"


def test_keys_sort_text_by_its_numbers_and_missing_values_come_last(opened):
    tab = opened()
    tab.focus("#table th:nth-child(1) button")
    tab.press("Enter")
    budgets = list(dict.fromkeys(tab.texts(COLUMN.format(1))))
    assert budgets == ["8 + 16", "24 + 16", "56 + 16", "104 + 16", "none"]
    tab.focus("#table th:nth-child(9) button")
    for _ in range(2):
        tab.press(" ")
        assert tab.texts(COLUMN.format(9))[-4:] == ["–"] * 4


def test_what_was_sorted_before_says_so_no_more(opened):
    tab = opened()
    tab.click("#table th:nth-child(3) button")
    tab.click("#table th:nth-child(4) button")
    states = tab.run("[...document.querySelectorAll('#table th')].map((head) => head.ariaSort)")
    assert states == ["none"] * 3 + ["descending"] + ["none"] * 5


def test_a_wide_table_scrolls_in_its_own_box_by_keys(opened):
    tab = opened(width=375, height=800)
    tab.focus("#table .scrolls")
    tab.press("ArrowRight")
    tab.run("new Promise((done) => setTimeout(done, 400))")
    assert tab.run("document.querySelector('#table .scrolls').scrollLeft") > 0
    assert tab.run("document.documentElement.scrollWidth") == 375


def test_claims_tell_outcome_and_interval(opened):
    tab = opened()
    assert tab.texts("#claims li") == [
        "holds\nE1 is more often right at 24 + 24 95 %: 0.26 to 0.35",
        "does not hold\nE1 thinks no longer\nThe other is not there.",
    ]


def test_parts_without_data_are_left_out_and_named(opened):
    payload = payloads.full()
    for name in ("curves", "training", "lengths", "claims", "reasoning"):
        payload[name] = []
    payload["table"]["rows"] = []
    payload["traces"]["problems"] = []
    tab = opened(payload)
    assert tab.texts("section") == tab.texts("nav a") == []
    assert tab.text(".missing") == (
        "Left out, as these runs hold nothing for it: accuracy against tokens used; table; training curves; "
        "lengths: asked against used; claims; how the reasoning changed; traces."
    )
