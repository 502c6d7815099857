"""What importing the package costs and says."""

import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import elastic
from elastic.ops import _extension


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_ops_needs_torch_alone():
    loaded = run("import sys, elastic.ops; print([m for m in sys.modules if '.' not in m])")
    assert "'torch'" in loaded
    for heavy in ("transformers", "accelerate", "trl", "matplotlib"):
        assert f"'{heavy}'" not in loaded


def copy_of_the_package(folder: Path, *extensions: str) -> Path:
    """A package `elastic` that can load its extension, with empty files for the given names."""
    package = folder / "elastic"
    (package / "ops").mkdir(parents=True)
    for name in ("__init__.py", "ops/__init__.py", "ops/_extension.py"):
        shutil.copy(Path(elastic.__file__).parent / name, package / name)
    for name in extensions:
        (package / name).touch()
    return package


# An editable install's finder, with which the tests may run, would hand out its own extension.
IMPORT = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import elastic.ops
"""


def said_when_imported(folder: Path, *behind: Path) -> str:
    """The last line that Python says when it imports the package in `folder`, with others behind it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, behind))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_an_extension_that_was_never_built_names_the_command(tmp_path):
    package = copy_of_the_package(tmp_path)
    said = said_when_imported(tmp_path)
    assert "was not built; in the project's folder run: pip install --no-build-isolation ." in said
    (package.parent / "setup.py").touch()
    assert said_when_imported(tmp_path).endswith("run: pip install --no-build-isolation --editable .")


def test_a_source_folder_names_the_installed_package_that_it_shadows(tmp_path):
    source = copy_of_the_package(tmp_path / "checkout", "_C.cpython-27-none.so")
    installed = copy_of_the_package(tmp_path / "site", f"_C{EXTENSION_SUFFIXES[0]}")
    said = said_when_imported(source.parent, tmp_path / "other", installed.parent)
    assert f"the source folder {source}, " in said
    assert f"shadows the package installed in {installed}; run Python in another folder, or" in said
    assert "not built" not in said
    assert said.endswith("--editable .")


def test_an_extension_of_another_folder_is_not_mixed_with_this_ones_source(monkeypatch, tmp_path):
    extension = SimpleNamespace(__file__=str(tmp_path / "elastic" / "_C.so"))
    monkeypatch.setattr(_extension.importlib, "import_module", lambda name: extension)
    with pytest.raises(ImportError, match=f"shadows the package installed in {tmp_path}/elastic; run Python"):
        _extension.load_extension()


def test_an_extension_of_another_python_is_named(tmp_path):
    copy_of_the_package(tmp_path, "_C.cpython-27-none.so")
    said = said_when_imported(tmp_path)
    assert "was built for another Python (_C.cpython-27-none.so; this one loads _C." in said
    assert "run: pip install" in said


def test_a_file_that_is_no_extension_says_what_the_linker_said(tmp_path):
    copy_of_the_package(tmp_path, f"_C{EXTENSION_SUFFIXES[0]}")
    assert re.search(r"does not load \(.*file too short\); .* run: pip install", said_when_imported(tmp_path))


@pytest.mark.parametrize(
    ("linker", "reason"),
    [
        (
            "libcudart.so.13: cannot open shared object file: No such file or directory",
            f"library that it was linked with is missing, torch {torch.__version__} here is built for",
        ),
        (
            "/x/_C.so: undefined symbol: _ZN3c1021throwNullDataPtrErrorEv",
            f"most likely it was built against another torch than this one, {torch.__version__}",
        ),
    ],
)
def test_what_keeps_an_extension_from_loading_is_told(monkeypatch, linker, reason):
    def broken(name):
        raise ImportError(linker)

    monkeypatch.setattr(_extension.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=r"run: pip install --no-build-isolation") as error:
        _extension.load_extension()
    assert linker in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_that_the_extension_itself_lacks_is_not_called_a_missing_build(monkeypatch):
    def lacking(name):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(_extension.importlib, "import_module", lacking)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'numpy'$"):
        _extension.load_extension()


def test_extension_of_another_torch_names_the_command(monkeypatch):
    monkeypatch.setattr(_extension.torch, "__version__", "1.2.3")
    with pytest.raises(ImportError, match=r"built for torch .*, this is torch 1\.2\.3; .* run: pip install"):
        _extension.load_extension()


def test_every_public_name_resolves():
    assert all(getattr(elastic, name) is not None for name in elastic.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        getattr(elastic, "nonsense")  # noqa: B009


def test_unknown_instruction_set_is_refused():
    code = "import elastic.ops._extension as e; e._C.cpu_isa()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ELASTIC_CPU_ISA": "sse9", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "expected default, avx2 or avx512, got 'sse9'" in done.stderr
