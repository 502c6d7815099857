"""Tampering with the grader and its channels gives 0, and the next grade is what it was."""

import os
import sys
from collections.abc import Iterator

import pytest

from elastic.data.code_tests import CallTest, ProgramTest, StdinTest
from tests.rewards.code.answers import grade
from tests.rewards.code.tricks import TRICKS
from tests.rewards.sandbox.programs import needs_sandbox
from tests.rewards.sandbox.test_ordinary_user import as_nobody

pytestmark = needs_sandbox

CHECK = ProgramTest("""
def check(candidate):
    for n, wanted in zip([20], [6765]):
        result = candidate(n)
        import colorsys
        assert result == wanted
check(f)
""")
CALLS = [CallTest("f", "[20]", ("6765",)), CallTest("f", "[10]", ("55",))]
OUTPUTS = [StdinTest("20", "6765"), StdinTest("10", "55")]
RIGHT = "def f(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n"


@pytest.fixture(autouse=True)
def next_grade() -> Iterator[None]:
    yield
    assert grade(RIGHT, CHECK) == 1.0


@pytest.fixture
def ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that was stopped by a signal is ended by its sandbox, which allows for a busy machine."""
    monkeypatch.setattr("elastic.rewards.code.run._START_S", 2.0)


@pytest.mark.usefixtures("ends_soon")
@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_passes_no_check(name: str) -> None:
    assert grade(TRICKS[name], CHECK, timeout_s=1.0) == 0.0


@pytest.mark.usefixtures("ends_soon")
@pytest.mark.parametrize("name", list(TRICKS)[::2])
def test_a_trick_passes_no_call(name: str) -> None:
    assert grade(TRICKS[name], *CALLS, timeout_s=1.0) == 0.0


@pytest.mark.usefixtures("ends_soon")
@pytest.mark.parametrize("name", list(TRICKS)[1::3])
def test_a_trick_prints_no_right_output(name: str) -> None:
    assert grade(TRICKS[name], *OUTPUTS, timeout_s=1.0) == 0.0


def test_the_right_program_passes_all_three() -> None:
    assert grade(RIGHT, CHECK, *CALLS) == 1.0
    assert grade(RIGHT + "print(f(int(input())))", *OUTPUTS) == 1.0


def test_programs_cannot_see_the_tests_of_a_check() -> None:
    """Of the searches above, what they find where the test is in their reach."""
    searches = [name for name in TRICKS if name.startswith("looks")]
    assert len(searches) == 4
    for name in searches:
        own = "WANTED = '[20], [6765]'\n" + TRICKS[name]
        found = grade(own, ProgramTest("assert f(0) == 6765"))
        assert found == (name in {"looks through its objects", "looks through the frames"}), name


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the other tests here have run as an ordinary user")
def test_an_ordinary_users_checker_is_closed_as_well() -> None:
    which = "passes_no_check and (looks or writes)"
    options = ["-q", "-p", "no:cacheprovider", "-rs", "-k", which]
    result = as_nobody([sys.executable, "-m", "pytest", *options, __file__])
    if "user namespaces" in result.stdout + result.stderr:
        pytest.skip("user namespaces are forbidden to ordinary users here")
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout
