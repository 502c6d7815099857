"""The kernel resource table: what is read from ptxas, and when the committed table is out of date."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / ".ci"))

import kernel_resources
from kernel_resources import (
    BEGIN,
    END,
    PAGE,
    Resources,
    architectures,
    main,
    out_of_date,
    parse,
    replaced,
    section,
    short_name,
    table,
)

ROOT = Path(__file__).parents[1]

# As nvcc 13.0 wrote it, demangled.
REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'void elastic::cuda::(anonymous namespace)::row<elastic::\
cuda::Bf16, 256>(elastic::GrpoParams<float>)' for 'sm_90'
ptxas info    : Function properties for void elastic::cuda::(anonymous namespace)::row<elastic::\
cuda::Bf16, 256>(elastic::GrpoParams<float>)
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compile time = 20.140 ms
ptxas info    : Compiling entry function 'elastic::cuda::(anonymous namespace)::sum(int (*)())' for 'sm_100'
ptxas info    : Function properties for elastic::cuda::(anonymous namespace)::sum(int (*)(int))
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 688 bytes cmem[0]
"""
ONE = Resources("f", "sm_80", 31, 0, 0, 0)


def test_counts_are_read_from_the_compilers_report():
    assert parse(REPORT) == [
        Resources("row<Bf16, 256>", "sm_90", 31, 2048, 16, 12),
        Resources("sum", "sm_100", 32, 0, 0, 0),
    ]


def test_a_report_of_another_form_is_refused():
    with pytest.raises(ValueError, match="expected ptxas -v's counts"):
        parse(REPORT.replace("spill stores", "stores spilled"))


def test_arguments_are_cut_off_and_template_arguments_kept():
    assert short_name("void elastic::cuda::k<(int)256, std::function<void (int)> >(float*)") == (
        "k<(int)256, std::function<void (int)> >"
    )


def test_figures_that_differ_stand_in_order_of_the_architectures():
    other = Resources("f", "sm_100", 40, 0, 0, 0)
    assert "| `f` | 31 / 40 | 0 | 0 | 0 |" in table([other, ONE])
    assert "| `g` | - / 40 |" in table([Resources("g", "sm_100", 40, 0, 0, 0), ONE])


@pytest.mark.parametrize(
    ("found", "version", "why"),
    [
        ([ONE], "13.0.88", None),
        ([Resources("f", "sm_80", 32, 0, 0, 0)], "13.0.88", "figures differ under the same nvcc"),
        ([Resources("f", "sm_80", 32, 0, 0, 0)], "13.1.0", None),
        ([ONE, Resources("g", "sm_80", 1, 0, 0, 0)], "13.1.0", "kernels differ: `g`"),
        ([Resources("g", "sm_80", 1, 0, 0, 0)], "13.0.88", "kernels differ: `f`, `g`"),
    ],
)
def test_the_committed_table_is_compared_with_the_compilers(found, version, why):
    page = f"words\n{section([ONE], '13.0.88')}\nmore words\n"
    assert out_of_date(page, section(found, version)) == why


def test_a_kernel_that_spills_fails_the_run(monkeypatch):
    spilling = [ONE, Resources("g", "sm_90", 255, 0, 8, 4)]
    monkeypatch.setattr(kernel_resources, "compile_all", lambda *_: spilling)
    with pytest.raises(SystemExit, match="spills registers: g"):
        main([])


def test_only_what_stands_between_the_marks_is_replaced():
    page = f"words\n{BEGIN}\nold\n{END}\nmore words\n"
    assert replaced(page, section([ONE], "13.0.88")) == f"words\n{section([ONE], '13.0.88')}\nmore words\n"
    with pytest.raises(ValueError, match="expected the marks"):
        replaced("words", "")


def test_the_committed_table_covers_the_architectures_that_are_built_and_no_kernel_spills():
    archs = architectures((ROOT / "CMakeLists.txt").read_text())
    head, *rows = re.findall(r"^\|.*\|$", PAGE.read_text().partition(BEGIN)[2], re.MULTILINE)
    assert " / ".join(f"sm_{arch}" for arch in archs) in head
    assert {row.split("|")[-2].strip() for row in rows[1:]} == {"0"}
