"""A replication in a very small configuration: files, arms, going on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elastic.commands.parts.training import training_config
from elastic.commands.replicate import ReplicateConfig, command_line, part, plan, run, story
from elastic.commands.replicate.command_line import main
from elastic.commands.replicate.config import NONE, from_json, to_json
from elastic.commands.replicate.report import BEGIN, END, report, tables
from elastic.evaluate import Row, read_samples
from elastic.models import tiny
from tests.commands.pages import payload_of

CONFIG = ReplicateConfig.quick(problems=4)
FILES = ("replicate.json", "replicate.md", "replicate.png", "report.html")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole small replication."""
    out = tmp_path_factory.mktemp("replicate")
    run(CONFIG, out, results=out / "results", processes=1)
    return out


def result(out: Path) -> dict:
    return json.loads((out / "replicate.json").read_text())


def comparable(out: Path) -> dict:
    return {key: value for key, value in result(out).items() if key != "wall_seconds"}


def test_results_are_copied_to_their_own_directory(finished: Path) -> None:
    for name in FILES:
        assert (finished / "results" / name).read_bytes() == (finished / name).read_bytes()
    assert (finished / "replicate.png").read_bytes().startswith(b"\x89PNG")


def test_every_arm_answers_every_problem_of_its_seed_under_every_budget(finished: Path) -> None:
    arms = [*(arm for group in plan.arms(CONFIG).values() for arm in group), *plan.swaps(CONFIG)]
    problems = {problem.id for problem in CONFIG.test_problems(0)}
    for arm in arms:
        samples = read_samples(finished / "samples" / f"{arm.name}-0.jsonl")
        assert len(samples) == CONFIG.problems * len(arm.pairs), arm.name
        assert {sample.method for sample in samples} == {arm.name}
        assert {sample.problem for sample in samples} == problems


def test_replicate_json_has_rows_claims_and_settings(finished: Path) -> None:
    content = result(finished)
    assert {"rows", "claims", "settings", "labels", "wall_seconds"} <= set(content)
    fields = set(Row.__dataclass_fields__)
    assert all(set(row) == fields | {"accuracy_by_seed"} for row in content["rows"])
    assert all({"claim", "holds", "low", "high", "seeds"} <= set(claim) for claim in content["claims"])
    assert set(content["settings"]["versions"]) == {"elastic", "torch", "transformers", "python"}


def test_the_report_is_what_the_json_says(finished: Path) -> None:
    assert (finished / "replicate.md").read_text() == report(result(finished))


def test_a_page_gets_the_tables_between_its_marks_and_keeps_the_rest(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nstale\n{END}\n\nafter\n")
    run(CONFIG, finished, page=page)
    text = page.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n\n{tables(result(finished))}\n![")
    assert text.endswith(f"replicate.png)\n\n{END}\n\nafter\n")
    assert "stale" not in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="page: needs a line '<!-- made by make replicate -->'"):
        run(CONFIG, finished, page=page)


def test_the_page_has_the_claims_and_every_arm_s_answers(finished: Path) -> None:
    shown = payload_of(finished / "report.html")
    assert [claim["claim"] for claim in shown["claims"]] == [
        claim["claim"] for claim in result(finished)["claims"]
    ]
    arms = [arm["label"] for arm in shown["traces"]["arms"]]
    assert sorted(arms) == sorted(plan.labels(CONFIG).values())
    assert (arms[0], arms[-1]) == ("separate budgeting", "E1")
    assert len(shown["traces"]["problems"]) == CONFIG.problems
    assert {line["run"] for line in shown["training"]} >= {"E1", "DLER", "L1-Max"}


def test_l1_is_asked_and_not_limited(finished: Path) -> None:
    samples = read_samples(finished / "samples" / "l1_exact-0.jsonl")
    assert {sample.budget for sample in samples} == {(None, None, t + 12) for t in (0, 16, 32)}
    # It knows no limit: nothing but the end of a rollout without budgets stops it.
    assert max(sample.tokens for sample in samples) > 12


def test_the_longer_l1_goes_on_with_the_run_of_the_shorter_one(finished: Path) -> None:
    runs = finished / "runs"
    lines = [
        (runs / f"{name}-0" / "metrics.jsonl").read_text().splitlines()
        for name in ("l1_exact", "l1_exact_long")
    ]
    assert [len(found) for found in lines] == [1, 2]
    assert lines[1][0] == lines[0][0]


@pytest.mark.parametrize("files_before_the_kill", [9])
def test_a_replication_that_was_stopped_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_before_the_kill: int
) -> None:
    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    write, written = part.write_samples, []

    def write_and_die(path: Path, samples: list) -> None:
        write(path, samples)
        written.append(path)
        if len(written) == files_before_the_kill:
            raise Killed

    monkeypatch.setattr(part, "write_samples", write_and_die)
    with pytest.raises(Killed):
        run(CONFIG, tmp_path, processes=1)
    assert not (tmp_path / "replicate.json").exists()
    monkeypatch.setattr(part, "write_samples", write)
    run(CONFIG, tmp_path, processes=1)
    assert comparable(tmp_path) == comparable(finished)
    for samples in (finished / "samples").iterdir():
        assert (tmp_path / "samples" / samples.name).read_bytes() == samples.read_bytes()


def test_a_finished_replication_is_not_run_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "run_parts", None)
    before = (finished / "replicate.json").read_bytes()
    run(CONFIG, finished)
    assert (finished / "replicate.json").read_bytes() == before


def test_other_settings_are_refused(finished: Path) -> None:
    with pytest.raises(ValueError, match="holds a replication with another solution"):
        run(replace(CONFIG, solution=10), finished)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    for changes, message in (
        ({"seeds": 0}, "seeds: must be at least 1, got 0"),
        ({"steps": 3}, "steps: must be at most long_steps = 2, got 3"),
        ({"thinking": 15}, "thinking: must be one of thinking_budgets, got 15"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(CONFIG, **changes)
    with pytest.raises(ValueError, match=r"holds no \*\.safetensors"):
        run(replace(CONFIG, base=str(tmp_path)), tmp_path / "out")


def test_the_command_line_reaches_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr(command_line, "run", lambda *given, **named: seen.append((given, named)))
    main(["--out", str(tmp_path), "--quick", "--seeds", "2", "--base", "x", "--device", "cpu"])
    main(["--out", str(tmp_path), "--results", "r", "--page", "p.md"])
    assert seen[0] == (
        (ReplicateConfig.quick(seeds=2, base="x", device="cpu"), tmp_path),
        {"results": None, "page": None},
    )
    main(["--out", str(tmp_path), "--harder"])
    assert seen[2][0][0] == ReplicateConfig.harder()
    assert seen[1] == ((ReplicateConfig(), tmp_path), {"results": Path("r"), "page": Path("p.md")})


def test_a_configuration_survives_its_way_through_json() -> None:
    assert from_json(to_json(CONFIG)) == CONFIG


def test_training_and_evaluation_share_neither_seed_nor_problem() -> None:
    config = ReplicateConfig()
    for seed in config.all_seeds:
        assert config.test_seed(seed) not in config.all_seeds
        tested = {problem.prompt for problem in config.test_problems(seed)}
        assert not tested & {problem.prompt for problem in tiny.problems(2000, seed)}


def test_no_problem_is_tested_twice() -> None:
    config = ReplicateConfig()
    tested = [problem for seed in config.all_seeds for problem in config.test_problems(seed)]
    assert len(tested) == config.problems * config.seeds
    assert (
        len({problem.prompt for problem in tested}) == len({problem.id for problem in tested}) == len(tested)
    )


def test_every_method_is_trained_and_every_model_answers() -> None:
    config = ReplicateConfig()
    trained = {training.name for chain in plan.chains(config).values() for training in chain}
    assert {"e1", "capped", "e1_random", "e1_curriculum", "anytime", "dler", "l1_exact", "l1_max"} <= trained
    arms = plan.arms(config)
    assert trained | {plan.BASE} <= set(arms)
    names = [arm.name for group in arms.values() for arm in group]
    assert len(names) == len(set(names))
    for group in arms.values():
        for arm in group:
            assert set(config.grid) <= set(arm.pairs)
            assert arm.method.startswith("l1") or arm.name == "s1" or NONE in arm.pairs


@pytest.mark.parametrize("build", [ReplicateConfig, ReplicateConfig.harder, ReplicateConfig.quick])
def test_every_training_is_a_configuration_with_its_own_method_and_enough_problems(build) -> None:
    config = build()
    for chain in (plan.chains(config) | plan.ablations(config)).values():
        for training in chain:
            found = training_config(
                config,
                model="tiny",
                device="cpu",
                seed=0,
                steps=training.steps,
                run_dir=Path("x"),
                method=training.method,
                tables=training.tables,
            )
            assert found.method == training.method
            batches = found.rollout.max_batches if found.rollout.dynamic_sampling else 1
            assert found.data.count >= training.steps * config.prompts_per_step * batches, training.name
            assert found.reward.length == {"l1_exact": "l1-exact", "l1_max": "l1-max"}.get(
                training.method, "none"
            )
