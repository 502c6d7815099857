"""What importing the package costs and says."""

import subprocess
import sys

import pytest

import elastic
from elastic import _extension


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_ops_needs_torch_alone():
    loaded = run("import sys, elastic.ops; print([m for m in sys.modules if '.' not in m])")
    assert "'torch'" in loaded
    for heavy in ("transformers", "accelerate", "trl", "matplotlib"):
        assert f"'{heavy}'" not in loaded


def test_missing_extension_names_the_command(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(_extension.importlib, "import_module", missing)
    with pytest.raises(
        ImportError, match=r"was not built; .* run: pip install --no-build-isolation"
    ) as error:
        _extension.load_extension()
    assert "\n" not in str(error.value)


def test_extension_of_another_torch_names_the_command(monkeypatch):
    monkeypatch.setattr(_extension.torch, "__version__", "1.2.3")
    with pytest.raises(ImportError, match=r"built for torch .*, this is torch 1\.2\.3; .* run: pip install"):
        _extension.load_extension()


def test_every_public_name_resolves():
    assert all(getattr(elastic, name) is not None for name in elastic.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        getattr(elastic, "nonsense")  # noqa: B009


def test_unknown_instruction_set_is_refused():
    code = "import elastic._extension as e; e._C.cpu_isa()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ELASTIC_CPU_ISA": "sse9", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "expected default, avx2 or avx512, got 'sse9'" in done.stderr
