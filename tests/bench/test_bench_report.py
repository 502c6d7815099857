"""Reports: a run survives the file, runs are compared, curves get exponents, docs match the committed run."""

import json
import math

import pytest

from bench import report
from bench.output import agreement, bars, markdown, plot, scaling, tables
from bench.output.results import ROW, file_name, read, row, write


def measured(variant, ratio, **more):
    values = {
        "op": "grpo_loss",
        "shape": "N=8 V=64",
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "variant": variant,
        "kind": "ours" if variant == "elastic" else "baseline",
        "median_ms": 10 / ratio,
        "iqr_ms": 0.1,
        "ratio_to_eager": ratio,
        "ceiling_share": 0.25,
        "peak_bytes": 3_000_000,
        "rounds": 5,
    }
    return row(**values | more)


def a_run(*rows, **more):
    facts = {
        "machine": {"device": "EPYC 9", "cores": 2, "isa": "AVX512"},
        "versions": {"torch": "2.13.0"},
        "commit": "abc",
        "date": "2026-11-21",
        "errors": [],
        "skipped": [],
    }
    return {**facts, **more, "results": list(rows)}


def curve(exponent, axis="N", variant="elastic"):
    sizes = [1024, 2048, 4096, 8192]
    return [measured(variant, 2.0, axis=axis, at=n, shape=f"N={n}", median_ms=3 * n**exponent) for n in sizes]


def test_a_run_survives_the_file(tmp_path):
    run = a_run(measured("eager", 1.0), measured("elastic", 6.5))
    write(tmp_path / "new" / "run.json", run)
    assert read(tmp_path / "new" / "run.json") == run
    assert all(tuple(r) == ROW for r in run["results"])


def test_a_file_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([1, 2]))
    with pytest.raises(ValueError, match="expected the JSON that"):
        read(tmp_path / "x.json")


def test_the_file_is_named_after_the_processor_and_no_host():
    torch = pytest.importorskip("torch")
    assert file_name(a_run(), torch.device("cpu")) == "cpu-epyc-9-2-cores-2026-11-21.json"


def test_runs_are_compared_by_ratio_and_what_differs_by_more_than_a_fifth_is_flagged():
    first = a_run(
        measured("eager", 1.0), measured("elastic", 6.0), measured("TRL", 0.8), measured("old", 2.0)
    )
    second = a_run(measured("eager", 1.0), measured("elastic", 7.3), measured("TRL", 0.9))
    text, flagged = agreement.text([first, second])
    assert flagged == 1
    rows = [line for line in text.splitlines() if line.startswith("| grpo_loss")]
    assert [line.split("|")[2].strip() for line in rows] == ["elastic", "TRL"]  # largest spread first
    assert "22% !" in rows[0]
    assert "!" not in rows[1]
    assert "not in every run: grpo_loss N=8 V=64 float32 cpu old" in text
    assert "1 of 2 ratios differ by more than 20%" in text


def test_floors_may_differ():
    runs = [a_run(measured("read + write in place", ratio, kind="floor")) for ratio in (20.0, 40.0)]
    assert agreement.compared(runs) == []


def test_three_runs_are_compared_by_their_extremes():
    runs = [a_run(measured("elastic", ratio)) for ratio in (6.0, 5.0, 6.6)]
    ((_, ratios),) = agreement.compared(runs)
    assert agreement.spread(ratios) == pytest.approx(0.32)


def test_the_report_exits_with_1_where_runs_disagree(tmp_path, capsys):
    for name, ratio in (("a", 6.0), ("b", 6.1), ("c", 9.0)):
        write(tmp_path / f"{name}.json", a_run(measured("elastic", ratio)))
    assert report.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert report.main([str(tmp_path / "a.json"), str(tmp_path / "c.json")]) == 1
    assert "50% !" in capsys.readouterr().out


def test_exponents_are_those_of_a_power_law():
    sizes = [1, 10, 100, 1000]
    assert scaling.exponent(sizes, [5 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert scaling.exponent(sizes, [7, 7, 3 * 100, 3 * 1000]) == pytest.approx(
        1.0
    )  # fixed costs do not count
    assert scaling.exponent([1], [1]) is None
    assert scaling.exponent(sizes, [0, 0, 0, 0]) is None


def test_curves_stand_in_the_report_with_their_exponents():
    text = report.text(a_run(*curve(1.0), *curve(2.0, variant="eager")))
    lines = {line.split("|")[2].strip(): line for line in text.splitlines() if "1,024 - 8,192" in line}
    assert "| 1.00" in lines["elastic"]
    assert "| 2.00" in lines["eager"]


def test_the_summary_compares_our_fastest_with_every_baseline_and_no_floor():
    rows = [
        measured("eager", 1.0),
        measured("TRL", 0.5),
        measured("elastic", 4.0),
        measured("read + write in place", 20.0, kind="floor"),
    ]
    text = tables.summary(rows)
    assert "elastic: 4.00 x eager, 8.00 x TRL" in text
    assert "read" not in text


def test_a_picture_has_bars_and_curves(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        measured("eager", 1.0),
        measured("elastic", 4.0),
        *curve(1.0),
        *curve(1.0, "V"),
        *curve(1.0, "rows"),
    ]
    plot.save(a_run(*rows, *curve(0.5, "thinking")), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    plot.save(a_run(*rows[:2]), tmp_path / "b.svg")
    assert "4" in (tmp_path / "b.svg").read_text()
    with pytest.raises(ValueError, match="expected results with a ratio or an axis"):
        plot.save(a_run(), tmp_path / "c.png")


def test_the_page_is_made_anew_between_its_marks_and_nowhere_else(tmp_path):
    write(tmp_path / "cpu-x.json", a_run(measured("eager", 1.0), measured("elastic", 4.0), *curve(1.0)))
    page = f"# Title\n\n{markdown.BEGIN}\nold\n{markdown.END}\n\nTail.\n"
    new = markdown.replaced(page, markdown.tables_of(tmp_path / "cpu-x.json"))
    assert new.startswith("# Title\n")
    assert new.endswith("Tail.\n")
    assert "old" not in new
    assert "| elastic |" in new
    assert "EPYC 9, 2 cores, AVX512, 1 thread, torch 2.13.0, commit abc, 2026-11-21" in new
    assert markdown.replaced(new, markdown.tables_of(tmp_path / "cpu-x.json")) == new
    assert "(benchmarks.png)" in new
    with pytest.raises(ValueError, match="expected one part"):
        markdown.replaced("nothing", "")


def test_the_pages_match_the_committed_run():
    path = markdown.committed()
    for page, text in markdown.pages(path, markdown.committed("gpu")).items():
        assert page.read_text() == text, f"{page.name}: make bench-docs"
    for picture in ("benchmarks.png", "speed.png"):
        assert path is None or (markdown.PAGE.parent / picture).exists()


def test_a_bar_is_of_the_case_that_is_least_in_our_favour():
    rows = [
        measured("TRL", 1.0),  # 10 ms
        measured("elastic", 4.0),
        measured("TRL", 2.0, dtype="bfloat16"),
        measured("elastic", 1.0, dtype="bfloat16"),  # 10 ms against 5
        measured("TRL", 8.0, axis="N"),
        measured("elastic", 1.0, axis="N"),
        measured("TRL", 1.0, op="sample"),
    ]
    mine, other = bars.hardest(rows, "grpo_loss")
    assert (mine["dtype"], mine["variant"], other["variant"]) == ("bfloat16", "elastic", "TRL")
    assert bars.hardest(rows, "sample") is None  # nothing of ours
    rows = [
        measured("eager", 1.0),
        measured("elastic", 4.0),
        measured("elastic, graph node", 90.0, kind="ours"),
    ]
    assert bars.hardest(rows, "grpo_loss")[0]["variant"] == "elastic"


def test_an_interval_holds_the_ratio_and_grows_with_either_spread():
    mine, other = measured("elastic", 1.0, iqr_ms=2.0), measured("TRL", 0.5, iqr_ms=4.0)  # 9-11 and 18-22 ms
    assert bars.interval(mine, other) == pytest.approx((18 / 11, 22 / 9))


def test_the_picture_of_bars_needs_something_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    gpu = a_run(measured("eager", 1.0), measured("elastic", 0.5), machine={"device": "H9", "driver": "1"})
    bars.save([a_run(measured("eager", 1.0), measured("elastic", 4.0)), gpu], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="expected results of one of grpo_loss"):
        bars.save([a_run()], tmp_path / "b.png")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (12.34, "12.3"), (0.001234, "0.00123"), (100.0, "100")]
)
def test_figures_have_three_digits_that_count(value, text):
    assert tables.digits(value) == text
    assert math.isclose(float(text), value, rel_tol=1e-2)


def test_a_gpus_summary_says_who_is_ahead_and_leaves_out_floors_and_what_keeps_all_logits():
    rows = [
        measured("eager", 1.0),  # 10 ms
        measured("TRL", 4.0),
        measured("elastic", 2.0),
        measured("elastic, all logits", 5.0, kind="ours"),
        measured("read + write in place", 20.0, kind="floor"),
        measured("a copy", 1.0, op="copy"),
        measured("elastic", 8.0, axis="N", at=1),
    ]
    lines = tables.duels(rows).splitlines()[2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["grpo_loss N=8 V=64 float32", "elastic", "5.00", "25%", "3.00", "TRL", "2.50", "3.00", "0.50 x"]
    ]


def test_a_gpus_part_names_the_steps_the_driver_and_what_failed(tmp_path):
    machine = {"device": "H9", "cores": 16, "driver": "1.2", "cuda": "13.0"}
    copy = measured("device to device", 1.0, op="copy", bytes=40e9)
    steps = {
        "test": {"status": "failed", "detail": "3 tests, 1 failed", "seconds": 7.1, "failures": ["a::b"]}
    }
    run = a_run(measured("eager", 1.0), measured("elastic", 4.0), copy, machine=machine, steps=steps)
    del run["skipped"]  # older runs have none
    write(tmp_path / "gpu-x.json", run)
    text = markdown.gpu_tables(tmp_path / "gpu-x.json")
    assert "- `test`, 7 s: 3 tests, 1 failed\n  - a::b\n" in text
    assert "Ceiling: 4.00 TB/s" in text
    assert "H9, driver 1.2, CUDA 13.0, torch 2.13.0, commit abc" in text
    readme = markdown.bars(tmp_path / "gpu-x.json", None)
    assert "(docs/speed.png)" in readme
    assert "- H9, driver 1.2, CUDA 13.0, torch 2.13.0, commit abc, 2026-11-21." in readme
    page = f"{markdown.BEGIN}\n{markdown.END}\n{markdown.GPU_BEGIN}\nold\n{markdown.END}\nTail\n"
    new = markdown.replaced(page, text, markdown.GPU_BEGIN)
    assert new.startswith(f"{markdown.BEGIN}\n{markdown.END}\n")
    assert new.endswith("Tail\n")
    assert "old" not in new


def test_figures_whose_quartiles_lie_far_apart_are_flagged():
    text = tables.comparison([measured("eager", 1.0, iqr_ms=0.9), measured("elastic", 4.0, iqr_ms=0.3)])
    lines = text.splitlines()
    assert "| 0.900 " in lines[2]
    assert "!" not in lines[2]
    assert "| 0.300 ! |" in lines[3]
    assert lines[-1] == tables.NOISY_NOTE
    assert "!" not in tables.comparison([measured("eager", 1.0, iqr_ms=0.9)])
