"""The comparison of trainings with TRL's."""

import json

import pytest
import torch

from bench.training_vs_trl import __main__ as command
from bench.training_vs_trl import page, trainings, updates


def test_two_steps_of_every_way_and_updates_that_agree(tmp_path, monkeypatch, capsys):
    """In this process: the command makes one for each."""

    def here(job, threads, folder):
        row = {name: job[name] for name in ("part", "way", "seed") if name in job}
        if job["part"] == "training":
            return row | trainings.measure(job["way"], job["seed"], trainings.Size(**job["size"]))
        return row | updates.measure(job["way"], updates.Size(**job["size"]), job["weights"])

    monkeypatch.setattr(command, "child", here)
    path = tmp_path / "run.json"
    options = ["--tiny", "--seeds", "1", "--steps", "2", "--rounds", "1", "--json", str(path)]
    assert command.main(options) == 0
    run = json.loads(path.read_text())
    assert [row["way"] for row in run["results"]] == [*trainings.WAYS, *updates.WAYS]
    for row in run["results"]:
        assert len(row["cpu_s"]) == len(row["wall_s"]) == 1
        assert min(row["cpu_s"]) > 0
        if row["part"] == "training":
            assert len(row["rewards"]) == 2
    for row in run["weights"]:
        assert row["apart"] < 1e-3 * row["step"]
        assert row["step"] > 1e-4
    shown = capsys.readouterr().out
    assert all(f"| {way} |" in shown for way in (*trainings.WAYS, *updates.WAYS))


def test_other_weights_fail_the_run(monkeypatch, capsys):
    found = {"sizes": {}, "results": [], "weights": [{"way": "TRL", "apart": 0.1, "step": 1.0}]}
    monkeypatch.setattr(command, "measured", lambda args: found)
    monkeypatch.setattr(page, "text", lambda run: "")
    assert command.main([]) == 1


def test_differences_are_the_largest():
    before, first, second = ([torch.tensor([0.0, value])] for value in (1.0, 3.0, 2.5))
    assert updates.differences(before, first, second) == (0.5, 2.0)


def test_ratios_are_medians_of_those_of_each_round():
    rows = [
        {"part": "update", "way": way, "cpu_s": [cpu], "wall_s": [9.0], "peak_bytes": peak * 10**6}
        for cpu, peak in ((1.0, 10), (8.0, 20), (2.0, 30))
        for way, cpu, peak in (("elastic", cpu, peak), ("TRL", 2 * cpu, 4 * peak))
    ]
    table = page._table(
        [page._costs(*([r for r in rows if r["way"] == w] for w in ("elastic", "TRL")), True)]
    )
    assert table.splitlines()[0] == "| 2.00 | 9.00 | 20 | 0.50 | 0.25 |"


def test_run_without_trainings_says_so():
    facts = {"device": "a processor", "cores": 2}
    versions = dict.fromkeys(("torch", "transformers", "trl"), "1")
    run = {"machine": facts, "versions": versions, "commit": "c", "date": "d", "threads": 1, "results": []}
    assert page.text(run).endswith("Trainings: not measured yet.")


def test_page_is_made_from_the_newest_kept_run():
    text = page.PAGE.read_text()
    assert page.replaced(text) == text
    assert page.replaced(text.replace("| elastic |", "| other |")) == text


@pytest.mark.parametrize("flag", ["--seeds", "--steps"])
def test_flags_want_numbers(flag):
    with pytest.raises(SystemExit):
        command.parse([flag, "some"])
