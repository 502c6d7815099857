"""The trace viewer: filters, choices, the list and the two answers."""

import pytest

from tests.evaluate.report.page import payloads

LIST = "#traces [role=listbox]"


def listed(tab):
    return [text.split("What")[0].split() for text in tab.texts(f"{LIST} [role=option]")]


def title(tab):
    return tab.text("#traces .detail h3")


def pick(tab, label, value):
    """Chooses in a list by keys: Tab to it, then the value's first letters."""
    found = "[...document.querySelectorAll('#traces label.choice')]"
    tab.run(f"{found}.find((node) => node.innerText.startsWith('{label}')).id = 'picked'")
    tab.focus("#picked select")
    for key in value:
        tab.press(key)


def test_verdicts_of_both_arms_stand_in_the_list(opened):
    assert listed(opened()) == [["✗", "✓"], ["✓", "✓"], ["✗", "✗"], ["✓", "✗"], ["✗", "✓"]]


@pytest.mark.parametrize(
    ("name", "kept"), [("differ", ["p0", "p3", "p4"]), ("right", ["p1"]), ("wrong", ["p2"]), ("all", ["p0"])]
)
def test_clicks_filter_the_problems(opened, name, kept):
    tab = opened()
    tab.click(f"#traces input[value={name}] + span")
    assert title(tab) == f"chains: {kept[0]}"
    assert len(listed(tab)) == (5 if name == "all" else len(kept))


def test_filters_tell_how_many_problems_pass(opened):
    assert opened().texts("#traces .filter label") == ["all 5", "differ 3", "right 1", "wrong 1"]


def test_arrow_keys_choose_a_filter(opened):
    tab = opened()
    tab.focus("#traces input[type=radio]")
    tab.press("ArrowRight")
    assert len(listed(tab)) == 3
    tab.press("ArrowRight")
    assert listed(tab) == [["✓", "✓"]]


def test_keys_move_in_the_list(opened):
    tab = opened(payloads.full(40))
    tab.focus(LIST)
    seen = []
    for key in (
        "ArrowDown",
        "ArrowDown",
        "ArrowUp",
        "PageDown",
        "End",
        "ArrowDown",
        "PageUp",
        "Home",
        "ArrowUp",
    ):
        tab.press(key)
        seen.append(title(tab).removeprefix("chains: p"))
    assert seen == ["1", "2", "1", "11", "39", "39", "29", "0", "0"]
    active = tab.run(f"document.querySelector('{LIST}').getAttribute('aria-activedescendant')")
    assert tab.run(f"document.getElementById('{active}').ariaSelected") == "true"


def test_the_chosen_problem_is_in_view_in_the_list(opened):
    tab = opened(payloads.full(60))
    tab.focus(LIST)
    tab.press("End")
    box, entry = (
        tab.run(f"document.querySelector('{name}').getBoundingClientRect().toJSON()")
        for name in (LIST, f"{LIST} [aria-selected=true]")
    )
    assert box["top"] <= entry["top"]
    assert entry["bottom"] <= box["bottom"] + 1


def test_a_click_shows_a_problem(opened):
    tab = opened()
    tab.click("#problem-3")
    assert title(tab) == "chains: p3"
    assert tab.texts("#traces .verdict") == ["✓ right", "✗ wrong"]


def test_runs_stand_in_order_with_their_kinds_in_words_and_the_cut_between(opened):
    runs = opened().text("#traces .answer:nth-child(2) .runs")
    assert [line for line in runs.split("\n") if line] == [
        *("THINKING", "6 * 8 is 48 ;", "✂ thought cut here", "FORCED", "</think>", "SOLUTION"),
        "48 + 0 is 48 ; the answer is 48",
    ]


def test_a_whole_thought_has_no_cut(opened):
    tab = opened()
    pick(tab, "budget", "no")
    assert tab.texts("#traces .cut") == []
    assert tab.texts("#traces .filter label") == ["all 5", "differ 0", "right 5", "wrong 0"]


def test_a_thought_cut_before_its_first_token_is_marked_first(opened):
    payload = payloads.full()
    answer = payload["traces"]["problems"][0]["answers"]["base"]["24+24"]
    answer["segments"] = answer["segments"][1:]
    assert opened(payload).text("#traces .runs").startswith("✂ thought cut here")


def test_the_numbers_of_the_two_answers_and_their_difference(opened):
    tab = opened()
    table = "[...document.querySelectorAll('#traces .measures tbody tr')]"
    rows = tab.run(f"{table}.map((row) => [...row.cells].map((cell) => cell.innerText))")
    assert rows == [
        ["left", "24", "16", "2", "12.5 %", "40.0 %", "0.0 %"],
        ["right", "13", "15", "0", "0.0 %", "53.6 %", "50.0 %"],
        ["change", "−11", "−1", "−2", "−12.5 points", "+13.6 points", "+50.0 points"],
    ]


def test_the_first_budget_shown_is_the_one_where_the_arms_differ_most(opened):
    payload = payloads.full()
    payload["traces"]["budgets"] = [{"id": "step 5", "label": "step 5"}, *reversed(payloads.BUDGETS)]
    for problem in payload["traces"]["problems"]:
        problem["answers"]["e1"]["step 5"] = payloads.answer(
            1, "", ""
        )  # of one arm alone: nothing to compare
    tab = opened(payload)
    assert tab.run("document.querySelector('#traces select').value") == "24+24"


def test_without_its_prompt_a_problem_is_named(opened):
    payload = payloads.full()
    payload["traces"]["problems"][0] |= {"prompt": "", "answer": ""}
    tab = opened(payload)
    assert tab.text("#problem-0 .words") == "chains: p0"
    assert tab.text("#traces .prompt") == "(prompt not kept)"
    assert "right answer" not in tab.text("#traces .detail")


def test_either_side_shows_any_arm(opened):
    tab = opened()
    pick(tab, "left", "E1")
    assert tab.texts("#traces .answer h4") == ["E1: trained under budgets\n✓ right"] * 2
    assert listed(tab)[0] == ["✓", "✓"]


def test_typing_searches_the_prompts(opened):
    tab = opened()
    tab.focus("#traces input[type=search]")
    for key in "+ 3":
        tab.press(key)
    assert title(tab) == "chains: p3"
    assert len(listed(tab)) == 1
    tab.press("x")
    assert tab.text("#traces .detail") == "No problem passes this filter."


def test_one_arm_alone_is_shown_alone(opened):
    payload = payloads.full()
    payload["traces"]["arms"] = payloads.ARMS[:1]
    tab = opened(payload)
    assert tab.texts("#traces .verdict") == ["✗ wrong"]
    assert listed(tab)[0] == ["✗"]


def test_an_answer_that_was_not_kept_is_said_to_be_missing(opened):
    payload = payloads.full()
    del payload["traces"]["problems"][0]["answers"]["base"]
    tab = opened(payload)
    assert "No answer kept at this budget." in tab.text("#traces .answer")
    assert listed(tab)[0] == ["–", "✓"]


def test_five_hundred_problems_add_no_answers_to_the_page(opened):
    tab = opened(payloads.full(500))
    assert tab.run("document.querySelectorAll('#traces .answer').length") == 2
    assert tab.run("document.querySelectorAll('*').length") < 500 * 3 + 1500
    assert len(listed(tab)) == 500
