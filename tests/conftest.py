"""Fixtures and settings shared by every test."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch

from tests.cuda_on_cpu.build import load
from tests.cuda_on_cpu.kernels import executed
from tests.cuda_on_cpu.launch_shapes import Shape, shaped
from tests.cuda_on_cpu.redirect import running

# Tiny tensors: a second OpenMP thread costs more than it gives on a shared machine.
torch.set_num_threads(1)
# `make gpu` runs the tests marked cuda with what a GPU machine happens to have.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import HealthCheck, settings

    # One schedule a test, not one an example, is what the kernels fixture is for.
    shared = [HealthCheck.function_scoped_fixture]
    settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=shared)
    settings.load_profile("default")

SHIM = pytest.StashKey[ModuleType]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--whole-suite` says that every test of the kernels is selected: those marked `whole_suite` run too."""
    parser.addoption("--whole-suite", action="store_true", help="run the tests marked whole_suite, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that use the `cuda` fixture carry the marker `cuda`: `pytest -m cuda`.

    What has no CUDA kernel is not run on them: tests marked `cpu_kernels`, and float64. Tests of the whole
    suite come last, and only where nothing was selected away, or `--whole-suite` says so.
    """
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("cuda")
    part = config.args != config.getini("testpaths") or config.option.keyword or config.option.markexpr
    part = part and not config.option.whole_suite
    last = [item for item in items if item.get_closest_marker("whole_suite")]
    items[:] = [item for item in items if item not in last and _has_kernels(item)] + ([] if part else last)


def _has_kernels(item: pytest.Item) -> bool:
    values = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    if not any(isinstance(value, str) and value == "cuda_on_cpu" for value in values):
        return True
    return not item.get_closest_marker("cpu_kernels") and not any(value is torch.float64 for value in values)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how much of csrc/cuda ran."""
    if (shim := config.stash.get(SHIM, None)) is not None:
        kernels = executed(shim.launches())
        launches = sum(sum(versions.values()) for versions in kernels.values())
        terminalreporter.write_line(
            f"CUDA kernels executed on the CPU: {len(kernels)} kernels, {launches:,} launches"
        )


@pytest.fixture
def cuda() -> torch.device:
    """A CUDA device. Without one the test is skipped, or fails where ELASTIC_REQUIRE_CUDA=1."""
    if not torch.cuda.is_available():
        if os.environ.get("ELASTIC_REQUIRE_CUDA") == "1":
            pytest.fail("ELASTIC_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def shim(pytestconfig: pytest.Config) -> ModuleType:
    """The CUDA kernels compiled for the CPU, built by the first test that asks."""
    pytestconfig.stash[SHIM] = module = load()
    return module


@pytest.fixture(params=["cpu", "cuda_on_cpu"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on the CPU kernels, and on the CUDA kernels under the shim."""
    if request.node.get_closest_marker("cpu_kernels"):
        yield "cpu"
        return
    with running(request.param, request):
        yield request.param


@pytest.fixture
def launch(shim: ModuleType) -> Iterator[Callable[[Shape], None]]:
    """Ops run on the CUDA kernels, in the launch shape last asked for: `launch((blocks, threads))`."""
    with shaped(shim) as choose:
        yield choose
