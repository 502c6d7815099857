"""What ElasticGRPOTrainer refuses, by name and before a model is loaded; TRL missing, or another version."""

import importlib.metadata
import subprocess
import sys

import pytest

import elastic.integrations.trl as room
from elastic import Budget
from elastic.integrations.trl import TESTED, ElasticGRPOTrainer, elastic_rollout_func
from elastic.integrations.trl.versions import check_trl
from tests.integrations.trl.runs import build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "luspo"}, r"loss_type: expected one of grpo, .*sapo, got 'luspo'"),
        ({"loss_type": "vespo"}, r"loss_type: expected one of grpo, .*sapo, got 'vespo'"),
        ({"importance_sampling_level": "sequence"}, r"'sequence' needs loss_type='grpo', .*got .*'dapo'"),
        ({"entropy_coef": 0.1}, r"entropy_coef, use_adaptive_entropy: expected 0 and False, got 0.1"),
        ({"use_adaptive_entropy": True}, r"use_adaptive_entropy: expected 0 and False, got 0.0 and True"),
        ({"use_liger_kernel": True}, r"use_liger_kernel: expected False, got True"),
    ],
)
def test_options_without_a_fused_counterpart_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(ElasticGRPOTrainer, str(tmp_path / "no model is there"), tmp_path, **options)


def test_options_that_its_rollouts_cannot_honour_are_refused_with_it(tmp_path):
    rollouts = elastic_rollout_func(Budget(8, 6))
    with pytest.raises(ValueError, match=r"repetition_penalty: expected 1.0, .*got 2"):
        build(
            *(ElasticGRPOTrainer, str(tmp_path / "no model is there"), tmp_path),
            rollout_func=rollouts,
            repetition_penalty=2.0,
        )


def test_sharded_parameters_are_refused(model_path, tmp_path, monkeypatch):
    trainer = build(ElasticGRPOTrainer, model_path, tmp_path, rollout_func=elastic_rollout_func(Budget(8, 6)))
    monkeypatch.setattr(ElasticGRPOTrainer, "is_fsdp_enabled", True, raising=False)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="needs whole parameters in each process"):
        room.trainer.check_trainer(trainer)
    with pytest.raises(ValueError, match="set use_vllm=True and vllm_mode='server'"):
        trainer.rollout_func([trainer.train_dataset[0]["prompt"]], trainer)


@pytest.mark.parametrize("version", ["1.15.2", "1.17.0", "2.0.0"])
def test_another_version_of_trl_is_named_with_the_range_that_was_tested(monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(ImportError, match=f"trl>={TESTED[0]},<{TESTED[1]}, and TRL {version} is installed"):
        check_trl()


def test_missing_trl_names_the_extra(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"pip install 'elastic\[trl\]'"):
        room.elastic_rollout_func  # noqa: B018


def test_the_room_is_imported_without_trl():
    code = "import sys, elastic.integrations.trl; print('trl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_unknown_names_are_unknown():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        room.nonsense  # noqa: B018
