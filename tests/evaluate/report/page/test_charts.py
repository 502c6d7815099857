"""Charts and their legends under pointer and keys."""

from tests.evaluate.report.page import payloads

CHART = "#accuracy svg[tabindex]"


def lines(tab, section):
    return tab.run(f"document.querySelectorAll('#{section} .plot .line').length")


def test_every_series_has_a_line_a_band_and_its_points(opened):
    tab = opened()
    assert lines(tab, "accuracy") == tab.run("document.querySelectorAll('#accuracy .band').length") == 4
    assert tab.run("document.querySelectorAll('#accuracy .plot .mark').length") == 4 * 5
    assert lines(tab, "training") == 2
    assert lines(tab, "lengths") == 1


def test_sets_have_charts_of_their_own(opened):
    payload = payloads.full()
    payload["curves"] += [curve | {"data": "other"} for curve in payloads.curves()]
    tab = opened(payload)
    assert tab.texts("#accuracy figcaption") == ["chains", "other"]
    assert len(tab.texts("#accuracy .legend button")) == 4


def test_a_label_of_two_runs_names_the_run(opened):
    payload = payloads.full()
    payload["curves"] += [curve | {"run": "second"} for curve in payloads.curves()[:1]]
    labels = opened(payload).texts("#accuracy .legend button")
    assert labels[0] == "vanilla: one cap, cut hard (demo)"
    assert labels[1] == "separate budgeting, untrained"
    assert labels[-1] == "vanilla: one cap, cut hard (second)"


def test_a_click_on_the_legend_switches_a_line_off_and_on(opened):
    tab = opened()
    button = "#accuracy .legend button:nth-child(2)"
    tab.click(button)
    assert lines(tab, "accuracy") == 3
    assert tab.run(f"document.querySelector('{button}').ariaPressed") == "false"
    tab.click(button)
    assert lines(tab, "accuracy") == 4


def test_space_and_enter_switch_a_line_off_and_on(opened):
    tab = opened()
    tab.focus("#accuracy .legend button:nth-child(3)")
    tab.press(" ")
    assert lines(tab, "accuracy") == 3
    tab.press("Enter")
    assert lines(tab, "accuracy") == 4


def test_arrow_keys_tell_the_values_of_points(opened):
    tab = opened()
    tab.focus(CHART)
    assert tab.text("#accuracy .tip").startswith(
        "vanilla: one cap, cut hard\nbudget 8 + 16\n6.6 % right (2.6 % to 10.6 %)"
    )
    tab.press("ArrowRight")
    assert "budget 24 + 16\n19.5 % right" in tab.text("#accuracy .tip")
    tab.press("End")
    assert "budget none\n96.5 % right" in tab.text("#accuracy .tip")
    tab.press("ArrowDown")
    assert tab.text("#accuracy .tip").startswith("separate budgeting, untrained")
    tab.press("Home")
    assert "17.0 % right" in tab.text("#accuracy .tip")
    tab.press("Escape")
    assert tab.text("#accuracy .tip") == ""


def test_the_pointer_tells_the_values_of_the_nearest_point(opened):
    tab = opened()
    mark = "#accuracy .plot g:nth-of-type(3) .mark:nth-of-type(3)"  # axes, then one group a line
    x, y = tab.place(mark)
    tab.move(x + 5, y + 3)
    assert tab.text("#accuracy .tip").splitlines()[0] == "separate budgeting, untrained"
    tab.move(2, 2)
    assert tab.text("#accuracy .tip") == ""


def test_keys_skip_lines_that_are_switched_off(opened):
    tab = opened()
    tab.click("#accuracy .legend button:nth-child(1)")
    tab.focus(CHART)
    tab.press("Home")
    assert tab.text("#accuracy .tip").startswith("separate budgeting, untrained")


def test_a_missing_value_is_a_gap_in_the_line(opened):
    path = opened().run("document.querySelector('#training .plot .line').getAttribute('d')")
    assert path.count("M") == 2
    assert path.count("L") == 59 - 2


def test_one_value_all_along_is_still_drawn(opened):
    payload = payloads.full()
    payload["training"] = [payload["training"][0] | {"steps": [1], "values": [2.0]}]
    tab = opened(payload)
    assert "NaN" not in tab.run("document.querySelector('#training .plot svg').outerHTML")


def test_a_line_looks_the_same_in_every_chart(opened):
    tab = opened()
    colour = "getComputedStyle(document.querySelector('{}')).stroke"
    accuracy = tab.run(colour.format("#accuracy .legend button:nth-child(4) .line"))
    assert tab.run(colour.format("#lengths .plot .line")) == accuracy


def test_a_tip_stays_within_its_chart_on_a_phone(opened):
    tab = opened(width=375, height=800)
    tab.focus(CHART)
    for key in ("Home", "End"):
        tab.press(key)
        tip, plot = (
            tab.run(f"document.querySelector('#accuracy {part}').getBoundingClientRect().toJSON()")
            for part in (".tip", ".plot")
        )
        assert plot["left"] <= tip["left"]
        assert tip["right"] <= plot["right"]


def test_a_legend_button_under_pointer_or_focus_sets_its_line_off(opened):
    tab = opened()
    faint = "[...document.querySelectorAll('#accuracy g[data-line]')].map((line) => line.matches('.faint'))"
    tab.move(*tab.place("#accuracy .legend button:nth-child(2)"))
    assert tab.run(faint) == [True, False, True, True]
    tab.move(2, 2)
    tab.focus("#accuracy .legend button:nth-child(4)")
    assert tab.run(faint) == [True, True, True, False]
    tab.press(" ")  # a line that is not there sets nothing off
    assert tab.run(faint) == [False, False, False]
