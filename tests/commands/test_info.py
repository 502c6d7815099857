"""`elastic info`: the facts a bug report needs."""

import json
import os

import torch

import elastic as package
from elastic.ops._extension import load_extension


def test_info_json_has_every_fact(elastic) -> None:
    outcome = elastic("info", "--json")
    assert outcome.status == 0
    facts = json.loads(outcome.out)
    assert set(facts) == {"version", "python", "platform", "packages", "extension", "cuda", "threads"}
    assert facts["version"] == package.__version__
    assert facts["packages"]["torch"] == torch.__version__
    assert set(facts["packages"]) == {"torch", "transformers", "accelerate", "flash-attn"}
    assert facts["cuda"]["available"] == torch.cuda.is_available()
    assert facts["threads"]["torch"] == torch.get_num_threads()
    assert facts["threads"]["cores"] == os.cpu_count()


def test_info_tells_the_build_and_the_instruction_set_in_use(elastic) -> None:
    extension = json.loads(elastic("info", "--json").out)["extension"]
    built = load_extension().build_info()
    assert set(extension) == {"error", "torch", "cuda", "cuda_archs", "nvcc", "isa", "isas"}
    assert extension["error"] is None
    assert extension["torch"] == built["torch"]
    assert extension["isa"] in extension["isas"]
    assert extension["cuda"] == bool(extension["cuda_archs"])


def test_a_missing_extension_is_a_fact_and_not_a_failure(elastic, monkeypatch) -> None:
    def missing() -> None:
        raise ImportError("elastic: the compiled extension was not built")

    monkeypatch.setattr("elastic.ops._extension.load_extension", missing)
    outcome = elastic("info", "--json")
    assert outcome.status == 0
    extension = json.loads(outcome.out)["extension"]
    assert extension["error"] == "elastic: the compiled extension was not built"
    assert extension["isa"] is None
    assert "was not built" in elastic("info").out


def test_info_for_reading_has_one_fact_a_line(elastic) -> None:
    lines = elastic("info").out.splitlines()
    names = [line.split("  ")[0] for line in lines]
    for name in ("elastic", "torch", "flash-attn", "extension", "CPU kernels", "CUDA device", "threads"):
        assert name in names
