"""The dependency direction of the architecture page, read from imports and includes."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# room of elastic/ -> the rooms it may import from besides itself; imports in functions and for types count
ROOMS: dict[str, set[str]] = {
    "budget": set(),
    "sampling": set(),
    "data": set(),
    "reference": {"budget", "sampling"},
    "ops": {"budget", "reference", "sampling"},
    "models": {"data"},
    "rollout": {"budget", "data", "models", "ops", "sampling"},
    "rewards": {"budget", "data", "rollout"},  # tests of programs; grading reads the record
    "integrations": {"budget", "models", "ops", "rollout", "sampling"},
    # engines of others stand beside the own one: evaluations and trainings open them by name
    "evaluate": {"budget", "data", "integrations", "models", "ops", "rewards", "rollout", "sampling"},
    "train": {"budget", "data", "integrations", "models", "ops", "rewards", "rollout", "sampling"},
    "commands": {
        *{"budget", "data", "evaluate", "integrations", "models", "ops", "rewards", "rollout", "sampling"},
        "train",
    },
}
# of a room, the rooms in it; what lies beside them stands above them
INNER_ROOMS: dict[str, dict[str, set[str]]] = {
    "rollout": {
        "record": set(),
        "schedule": set(),
        "attention": set(),
        "plan": {"record", "schedule"},
        "cache": {"schedule"},
        "step": {"attention", "cache", "schedule"},
    },
    "rewards": {
        "sandbox": set(),
    },
    "integrations": {
        "request_values": set(),  # a file that two of them share
        "transformers": set(),
        "trl": {"request_values"},
        "vllm": {"request_values"},
    },
    "evaluate": {
        "engines": set(),
    },
    "train": {
        "config": set(),
        "collect": {"config"},
        "update": {"collect", "config"},
        "run": {"collect", "config", "update"},
        "planning": {"collect", "config", "run", "update"},
    },
}
MOST_ENTRIES = 15  # of elastic/
MOST_LINES = 320  # of a file

CSRC_ALLOWED = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "head": {"core", "cpu", "head"},  # computes with whole tensors, for the bindings
    "binding": {"core", "cpu", "cuda", "head", "binding"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PYTHON_FILES = sorted((ROOT / "elastic").rglob("*.py"))
MODULES = {module_of(path): path for path in PYTHON_FILES}
PAGE_FILES = sorted(p for p in (ROOT / "elastic").rglob("*") if p.suffix in {".css", ".html", ".js"})
C_FILES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cuh", ".cpp", ".cu"})


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name not in MODULES and "." in name:  # a class, a function or a constant
                name = name.rpartition(".")[0]
            found |= {name} & MODULES.keys()
    return found


def room(module: str, depth: int) -> str:
    return (module.split(".") + [""] * depth)[depth]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_to_rooms_below(module):
    own = room(module, 1)
    used = imports(MODULES[module])
    if own not in {"", "__main__"}:
        assert own in ROOMS, f"{own} is new: give it a place in this table and on the architecture page"
        extra = {room(other, 1) for other in used} - ROOMS[own] - {own}
        # the package itself has the version, which the command line prints and results record
        assert extra <= ({""} if own in {"commands", "evaluate"} else set()), (
            f"{module} imports {sorted(extra)}"
        )
    rooms = INNER_ROOMS.get(own, {})
    if (inner := room(module, 2)) in rooms:
        extra = {room(other, 2) for other in used if room(other, 1) == own} - rooms[inner] - {inner}
        assert not extra, f"{module} imports {sorted(extra)}"


def test_no_import_runs_in_a_circle():
    waiting = {module: imports(path) - {module} for module, path in MODULES.items()}
    while free := {module for module, used in waiting.items() if not used & waiting.keys()}:
        waiting = {module: used for module, used in waiting.items() if module not in free}
    assert not waiting, f"in circles, or above one: {sorted(waiting)}"


def test_the_package_has_few_doors():
    listed = subprocess.run(["git", "ls-files", "elastic"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.split() or [f"elastic/{p.name}" for p in PYTHON_FILES]
    entries = {Path(name).parts[1] for name in files}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


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
    files = PYTHON_FILES + PAGE_FILES + C_FILES
    long = {p.name: n for p in files if (n := len(p.read_text().splitlines())) >= MOST_LINES}
    assert not long
