"""How much of csrc/cuda the whole suite ran."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.cuda_on_cpu.kernels import executed, in_sources

pytestmark = pytest.mark.whole_suite
PAGE = Path(__file__).parent.parent.parent / "docs" / "kernels.md"


def test_every_kernel_ran(shim):
    assert in_sources() == set(executed(shim.launches()))


def test_every_instance_of_a_template_ran(shim):
    """As many as nvcc compiled, by the table of resources; the two compilers spell names differently."""
    table = PAGE.read_text().partition("<!-- resources -->")[2]
    compiled = Counter(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    ran = {name: len(instances) for name, instances in executed(shim.launches()).items()}
    assert ran == compiled, executed(shim.launches())
