"""The dependency direction of the architecture page, read from imports and includes."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# part of elastic/ -> the parts it may import besides itself; `elastic` is the package's own __init__
LEAVES: set[str] = {
    "budget",
    "machine",
    "markers",
    "marker_text",
    "pattern",
    "spelling",
    "token_text",
    "forced_text",
    "table",
    "budget_checks",
    "eos",
    "reference",
    "_extension",
}
ALLOWED: dict[str, set[str]] = {
    "_extension": set(),
    "reference": {"budget", "machine", "markers", "pattern", "sampling", "table"},
    "pattern": set(),
    "token_text": set(),
    "marker_text": {"token_text"},
    "spelling": {"pattern", "token_text"},
    "markers": {"budget", "marker_text", "pattern", "spelling", "token_text"},
    "forced_text": {"budget", "markers", "pattern", "token_text"},
    "table": {"budget", "forced_text", "markers", "pattern"},
    "eos": set(),
    "machine": {"budget", "eos", "markers", "forced_text", "table", "token_text"},
    "annotation": {"budget", "eos", "machine", "markers", "ops"},
    "budget_checks": set(),
    "budget": {"budget_checks", "eos", "machine", "markers"},
    "sampling": set(),
    "files": set(),
    "probe": set(),
    "threads": set(),
    "quiet": set(),
    "wording": set(),
    "model_files": set(),
    "models": {"model_files", "quiet", "tiny"},
    "data": {"tiny", "files"},
    "rewards": {"rollout"},  # grading reads the record
    "methods": LEAVES | {"rewards"},
    "ops": LEAVES | {"sampling"},
    "rollout": LEAVES | {"ops", "sampling", "models", "threads", "files", "probe"},
    "tiny": {"data", "threads", "rewards", "files", "quiet"},
    "train": LEAVES
    | {
        "ops",
        "rollout",
        "sampling",
        "models",
        "threads",
        "data",
        "rewards",
        "tiny",
        "files",
        "probe",
        "quiet",
    },
    "evaluate": LEAVES | {"ops", "rollout", "sampling", "data", "methods", "rewards"},
    "report": LEAVES | {"rollout", "evaluate", "data", "methods", "files"},
}
TOP = {
    "cli",
    "demo",
    "generate",
    "generate_flags",
    "generate_request",
    "info",
    "interrupt",
    "__main__",
    "__init__",
}  # may import anything below them

CSRC_ALLOWED = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "head": {"core", "cpu", "head"},  # computes with whole tensors, for the bindings
    "binding": {"core", "cpu", "cuda", "head", "binding"},
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "elastic").parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("elastic.")}
    # `from elastic import Budget` names a public class, not a part
    return {
        part for part in parts if (ROOT / "elastic" / part).is_dir() or (ROOT / f"elastic/{part}.py").exists()
    }


PYTHON_FILES = sorted((ROOT / "elastic").rglob("*.py"))
C_FILES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cuh", ".cpp", ".cu"})


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_imports_follow_the_layers(path):
    part = part_of(path)
    if part in TOP:
        return
    assert part in ALLOWED, f"{part} is new: give it a place in this table and on the architecture page"
    extra = imported_parts(path) - ALLOWED[part] - {part}
    assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_includes_follow_the_layers(path):
    layer = path.relative_to(ROOT / "csrc").parts[0]
    text = path.read_text()
    used = set(re.findall(r'#include "(core|cpu|cuda|head|binding)/', text))
    assert used <= CSRC_ALLOWED[layer], (
        f"{path.relative_to(ROOT)} includes {sorted(used - CSRC_ALLOWED[layer])}"
    )
    if layer in {"core", "cuda"}:
        assert not re.search(r"#include <(torch|ATen|c10|pybind11)/", text), "this layer knows no torch"


def test_no_file_is_long():
    long = {p.name: n for p in PYTHON_FILES + C_FILES if (n := len(p.read_text().splitlines())) > 350}
    assert not long
