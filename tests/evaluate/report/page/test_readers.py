"""The page for every reader: keys alone, a phone, dark mode, less motion, paper, no colour."""

from pathlib import Path

import pytest

from tests.evaluate.report.page import payloads

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
# What a reader can operate, in the order of the page; of radio buttons Tab reaches the checked one.
CONTROLS = "a, button, select, summary, input:not([type=radio]), input:checked, [tabindex='0']"
NAMED = {"application", "button", "combobox", "searchbox", "radio", "listbox", "option", "region", "link"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_of_4_5_and_lines_of_3(opened, scheme):
    payload = payloads.full()
    payload["curves"] += [curve | {"label": f"{curve['label']} again"} for curve in payloads.curves()]
    tab = opened(payload, prefers_color_scheme=scheme)
    tab.focus("#accuracy svg[tabindex]")
    found = tab.run(CONTRAST)
    assert len(found["texts"]) > 200
    assert [item for item in found["texts"] if item[0] < 4.5] == []
    assert min(found["lines"] + found["marks"]) >= 3


def test_dark_mode_is_dark(opened):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened(prefers_color_scheme="light").run(ground) == "rgb(247, 248, 249)"
    assert opened(prefers_color_scheme="dark").run(ground) == "rgb(19, 23, 26)"


def test_tab_reaches_every_control_in_order_and_each_shows_its_focus(opened):
    tab = opened()
    count = tab.run(f'(window.controls = [...document.querySelectorAll("{CONTROLS}")]).length')
    assert count > 40
    tab.run("window.focused = () => document.activeElement")
    for index in range(count):
        tab.press("Tab")
        assert tab.run(f"focused() === controls[{index}]"), tab.run(f"controls[{index}].outerHTML")
        # a radio button is drawn by the label beside it
        shown = "focused().matches('[type=radio]') ? focused().nextSibling : focused()"
        assert tab.run(f"getComputedStyle({shown}).outlineStyle") == "solid"


def test_the_first_key_leads_past_the_links(opened):
    tab = opened()
    tab.press("Tab")
    assert tab.text(":focus") == "Skip to the report"
    tab.press("Enter")
    assert tab.run("document.activeElement.id") == "report"


def test_links_lead_to_their_parts(opened):
    tab = opened(prefers_reduced_motion="reduce")
    tab.click("nav a[href='#traces']")
    tab.settle()
    assert 0 <= tab.run("document.getElementById('traces').getBoundingClientRect().top") < 200


def test_every_control_has_a_name_and_every_part_a_heading(opened):
    tab = opened()
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"].lower() in NAMED]
    assert {node["role"]["value"].lower() for node in controls} == NAMED
    assert [node for node in controls if not node["name"]["value"]] == []
    assert tab.texts("h2") == tab.texts("nav a")


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_page_never_scrolls_sideways(opened, width):
    assert opened(width=width).run("document.documentElement.scrollWidth") == width


def test_controls_on_a_phone_are_large_enough_to_touch(opened):
    tab = opened(width=375)
    controls = ".legend button, select, .filter input + span, .problems li"
    heights = (
        f"[...document.querySelectorAll('{controls}')].map((node) => node.getBoundingClientRect().height)"
    )
    assert min(tab.run(heights)) >= 24


@pytest.mark.parametrize(("motion", "scrolling"), [("reduce", "auto"), ("no-preference", "smooth")])
def test_nothing_moves_for_who_asks_for_less_motion(opened, motion, scrolling):
    tab = opened(prefers_reduced_motion=motion)
    assert tab.run("getComputedStyle(document.documentElement).scrollBehavior") == scrolling
    still = tab.run("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
    assert still == (motion == "reduce")


def test_kinds_are_told_apart_without_colour(opened):
    tab = opened()
    style = "getComputedStyle(document.querySelector('#traces .answer .run.{}'))"
    kinds = ("thinking", "forced", "solution")
    assert len({tab.run(style.format(kind) + ".borderLeftStyle") for kind in kinds}) == 3
    assert tab.run(style.format("forced p") + ".textDecorationLine") == "underline"
    assert tab.run(style.format("thinking p") + ".fontStyle") == "italic"


def test_paper_shows_the_parts_in_light_and_no_controls(opened):
    tab = opened()
    tab.media("print", prefers_color_scheme="dark")
    tab.settle()
    assert tab.texts("nav, .controls, [role=listbox]") == []
    assert len(tab.texts("section h2")) == 7
    ground = tab.run("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    assert tab.call("Page.printToPDF")["data"]
