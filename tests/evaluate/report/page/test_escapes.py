"""Whatever a model writes is shown, and does nothing."""

import pytest

from elastic.evaluate.report.page import render
from tests.evaluate.report.page import payloads
from tests.evaluate.report.page.browser import Tab

HOSTILE = [
    "<script>window.caught = 1</script>",
    "</script><script>window.caught = 1</script>",
    "<!-- <script>",
    "<img src=x onerror='window.caught = 1'>",
    "\" autofocus onfocus='window.caught = 1' x=\"",
    "javascript:window.caught=1",
    "a\u2028b\u2029c",
    "${window.caught = 1} &lt; &amp;",
]


def everywhere(text):
    """A payload with the text in every place that a model, a data set or a user can reach."""
    payload = payloads.full()
    payload["notes"] = [text]
    payload["runs"][0] |= {"name": text, "facts": {text: text}}
    payload["claims"][0]["claim"] = text
    payload["training"][0] |= {"run": text, "title": text, "unit": text}
    for curve in payload["curves"]:
        curve |= {"label": f"{curve['label']} {text}", "data": text}
    payload["table"]["rows"][0][1] = payload["table"]["columns"][1]["title"] = text
    payload["reasoning"][0]["arm"] = text
    traces = payload["traces"]
    traces["arms"] = [arm | {"label": text} for arm in traces["arms"]]
    traces["budgets"] = [budget | {"label": text} for budget in traces["budgets"]]
    for problem in traces["problems"]:
        problem |= {"id": text, "data": text, "prompt": text, "answer": text}
        for answers in problem["answers"].values():
            for answer in answers.values():
                answer["segments"] = [[kind, text] for kind, _ in answer["segments"]]
                answer["finish_reason"] = text
    return payload | {"title": text}


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is_and_never_runs(opened, text):
    tab = opened(everywhere(text))
    tab.focus("#accuracy svg[tabindex]")
    tip = tab.run("document.querySelector('#accuracy .tip').textContent")
    tab.click("#problem-2")
    assert tab.run("window.caught") is None
    assert tab.run("document.scripts.length") == 2
    assert tab.run("document.images.length") == 0
    shown = text.replace("\u2028", "⟨U+2028⟩").replace("\u2029", "⟨U+2029⟩")
    assert shown in tip
    for selector in (
        "h1",
        "#claims li",
        "#traces .prompt",
        "#traces .run.solution p",
        "#traces h4",
    ):
        assert shown in tab.run(f"document.querySelector('{selector}').textContent"), selector


def test_controls_of_direction_are_spelled_out(opened):
    tab = opened(everywhere("safe \u202egnirts\u202c \u2066x\u2069 \x1b[31m"))
    assert tab.text("#traces .run.solution p") == "safe ⟨U+202E⟩gnirts⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩ ⟨U+001B⟩[31m"


def test_text_from_right_to_left_turns_nothing_around_it(opened):
    tab = opened(everywhere("שלום עולם"))
    assert tab.run("getComputedStyle(document.querySelector('#traces .run p')).unicodeBidi") == "isolate"


@pytest.mark.parametrize("width", [375, 1280])
def test_very_long_words_do_not_widen_the_page(opened, width):
    tab = opened(everywhere("w" * 3000), width=width)
    assert tab.run("document.documentElement.scrollWidth") == width


def test_the_policy_refuses_what_is_not_of_the_page(chromium, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render(payloads.full()), encoding="utf-8")
    tab = Tab(chromium)
    tab.open(path)
    tab.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.caught = 1'}))"
    )
    tab.run("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.caught = 1\">x</b>')")
    tab.run("document.body.lastChild.click()")
    assert tab.run("window.caught") is None
    assert tab.run(f"fetch('{path.as_uri()}').then(() => 'read', () => 'refused')") == "refused"
    tab.close()
