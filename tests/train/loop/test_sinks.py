"""What TensorBoard, W&B and a user's own sink get of a run."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from elastic.models.tiny import problems
from elastic.train.config import TrainConfig
from elastic.train.run.sinks import Sink
from tests.train.tiny_run import build_config, lines, run

TEST = problems(2, split="test")
TABLES = {"eval": {"every": 2, "count": 2, "budgets": [[3, 4]]}}


class Kept(Sink):
    def __init__(self):
        self.calls = []

    def open(self, config, done):
        self.calls.append(("open", done))

    def step(self, step, metrics):
        self.calls.append(("step", step, metrics))

    def evaluation(self, step, metrics):
        self.calls.append(("evaluation", step, metrics))

    def samples(self, step, records):
        self.calls.append(("samples", step, len(records)))

    def sync(self):
        self.calls.append(("sync",))

    def close(self):
        self.calls.append(("close",))


def test_own_sink_gets_what_the_files_have(tmp_path):
    sink = Kept()
    logging = {"samples_every": 2, "samples": 3}
    config = build_config(tmp_path, train={"steps": 2, "save_every": 2}, logging=logging, **TABLES)
    run(config, eval_dataset=TEST, sinks=[sink])
    assert [call[:2] for call in sink.calls] == [
        *(("open", -1), ("evaluation", 0), ("step", 1), ("step", 2), ("samples", 2)),
        *(("evaluation", 2), ("sync",), ("close",)),
    ]
    records = lines(tmp_path / "metrics.jsonl")
    steps = [record for record in records if "reward" in record]
    assert [{"step": call[1], **call[2]} for call in sink.calls if call[0] == "step"] == steps
    evaluations = [{k: v for k, v in r.items() if k.startswith("eval/")} for r in records if r not in steps]
    assert [call[2] for call in sink.calls if call[0] == "evaluation"] == evaluations


def test_sink_that_fails_is_left_out_and_the_run_goes_on(tmp_path):
    class Gone(Kept):
        def step(self, step, metrics):
            super().step(step, metrics)
            raise ConnectionError("no network")

    gone, other = Gone(), Kept()
    with pytest.warns(UserWarning, match="sink Gone failed .*no network"):
        run(build_config(tmp_path, train={"steps": 3}), sinks=[gone, other])
    assert [call[0] for call in gone.calls] == ["open", "step"]
    assert [call[0] for call in other.calls] == ["open", "step", "step", "step", "close"]
    assert len(lines(tmp_path / "metrics.jsonl")) == 3


def test_sink_that_cannot_be_opened_ends_the_run_before_its_first_step(tmp_path):
    class Absent(Sink):
        def open(self, config, done):
            raise ConnectionError("no account")

    other = Kept()
    with pytest.raises(ConnectionError, match="no account"):
        run(build_config(tmp_path), sinks=[other, Absent()])
    assert [call[0] for call in other.calls] == ["open", "close"]
    run(build_config(tmp_path))


def test_run_of_a_file_takes_sinks_too(tmp_path):
    from elastic.train import build_trainer

    sink = Kept()
    build_trainer(build_config(tmp_path, train={"steps": 1}), sinks=[sink]).train()
    assert [call[0] for call in sink.calls] == ["open", "step", "close"]


def test_tensorboard_has_completions_as_a_table(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = build_config(tmp_path, logging={"tensorboard": True, "samples_every": 3, "samples": 2})
    run(config)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("completions/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert event.step == 3
    assert text.startswith("| step | problem |")
    assert text.count("\n") == 3


class FakeRun:
    def __init__(self, options):
        self.id = options["id"] or "drawn"
        self.logged, self.axes, self.finished = [], [], False

    def define_metric(self, name, step_metric=None):
        self.axes.append((name, step_metric))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that remembers; nothing of it can send."""
    fake = types.ModuleType("wandb")
    fake.runs = []

    def init(**options):
        fake.runs.append((options, FakeRun(options)))
        return fake.runs[-1][1]

    fake.init = init
    fake.Settings = lambda **values: values
    fake.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_the_metrics_and_the_resumed_run_is_the_same_one(tmp_path, wandb):
    logging = {"wandb": "budgets", "wandb_name": "first", "wandb_tags": ["a", "b"], "samples_every": 1}
    for steps in (1, 2):
        config = build_config(tmp_path, train={"steps": steps, "save_every": 1}, logging=logging, **TABLES)
        run(config, eval_dataset=TEST)
    (first, one), (second, two) = wandb.runs
    wanted = {"project": "budgets", "name": "first", "tags": ["a", "b"], "mode": None, "resume": "allow"}
    assert wanted.items() <= first.items()
    assert (
        first["config"]
        == build_config(tmp_path, train={"steps": 1, "save_every": 1}, logging=logging, **TABLES).to_dict()
    )
    assert first["settings"] == {
        "console": "off",
        "quiet": True,
        "disable_git": True,
        "save_code": False,
    }
    assert (first["id"], second["id"]) == (None, "drawn")
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": "drawn"}
    assert one.axes == [("train_step", None), ("*", "train_step")]
    assert [values["train_step"] for values in one.logged] == [0, 1, 1, 1]
    assert [values["train_step"] for values in two.logged] == [2, 2, 2]
    record = next(r for r in lines(tmp_path / "metrics.jsonl") if "reward" in r)
    assert one.logged[1] == {k: v for k, v in record.items() if k != "step"} | {"train_step": 1}
    columns, rows = one.logged[2]["completions"]
    assert columns[:2] == ["step", "problem"]
    assert len(rows) == 4
    assert one.finished
    assert two.finished


def test_nothing_of_wandb_is_touched_unless_a_project_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    run(build_config(tmp_path, train={"steps": 1}))
    assert not (tmp_path / "wandb.json").exists()


def test_project_without_the_package_is_refused_before_anything_runs(monkeypatch):
    table = {
        "model": {"path": "tiny"},
        "data": {"source": "tiny", "count": 4},
        "train": {"output_dir": "out"},
    }
    config = TrainConfig.from_table({**table, "logging": {"wandb": "budgets"}})
    monkeypatch.setattr("elastic.train.config.train_config.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"logging.wandb: .*pip install elastic\[wandb\]"):
        config.preflight()


OFFLINE = """
import sys
from pathlib import Path
from tests.train.tiny_run import build_config, run

logging = {"wandb": "budgets", "wandb_mode": "offline", "samples_every": 1, "samples": 1}
for steps in (1, 2):
    train = {"steps": steps, "save_every": 1}
    run(build_config(Path(sys.argv[1]), train=train, logging=logging))
"""


def test_wandb_itself_writes_a_run_offline_and_goes_on_in_it(tmp_path):
    pytest.importorskip("wandb")
    # In a process of its own: its service outlives a run.
    command = [sys.executable, "-c", OFFLINE, str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True, timeout=300)
    name = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = [path.name for path in (tmp_path / "wandb").rglob("*.wandb")]
    assert files
    assert set(files) == {f"run-{name}.wandb"}
