"""No wider instruction can run on a processor that lacks it, read from the built extension's disassembly.

What reaches AVX code must go through the tables of csrc/cpu/dispatch.h. So AVX may stand only in functions
local to a kernel file: the linker merges inline functions of several objects into one, perhaps the AVX-512
copy, and static initialisers run at import, before anything was chosen.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from elastic import _C

FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.+)>:$")
# Names of VEX and EVEX encoded instructions begin with v (so do verr, verw); k... moves mask registers.
AVX = re.compile(r"^\s+[0-9a-f]+:\s+(v(?!er[rw]\b)[a-z0-9]+|k(mov|or|and|xor|not|unpck|shift|test)[a-z]+)\b")


def functions_with_avx(disassembly: Iterable[str]) -> Iterator[str]:
    """Names (mangled) of functions that hold an AVX instruction, once each."""
    name, told = "", ""
    for line in disassembly:
        if found := FUNCTION.match(line):
            name = found["name"]
        elif name != told and AVX.match(line):
            told = name
            yield name


def run(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def avx_functions() -> set[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("AVX exists on x86-64 only")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    return set(functions_with_avx(run("objdump", "--disassemble", "--no-show-raw-insn", _C.__file__)))


def test_the_reader_finds_avx_and_nothing_else():
    listing = """
0000000000001000 <plain>:
    1000:  movups (%rax),%xmm0
    1003:  ret
0000000000001010 <wide>:
    1010:  vmovups (%rax),%zmm0
    1016:  vzeroupper
0000000000001020 <masks>:
    1020:  kmovw  %eax,%k1
"""
    assert list(functions_with_avx(listing.splitlines())) == ["wide", "masks"]


def test_kernels_were_built_with_avx(avx_functions):
    assert avx_functions, "the build's instruction sets make no difference"


def is_private(name: str) -> bool:
    """Whether a mangled name lies in an unnamed namespace, so that no other object file can have its twin."""
    return "_GLOBAL__N_1" in name


def test_avx_code_is_private_to_its_file_so_the_linker_cannot_hand_it_to_others(avx_functions):
    # Symbol tables cannot tell: hidden inline functions look local too once they were merged.
    assert is_private("_ZN7elastic3cpu12_GLOBAL__N_15statsEv")
    assert not is_private("_ZSt3expf")
    assert not {name for name in avx_functions if not is_private(name)}


def test_nothing_with_avx_runs_when_the_extension_is_loaded(avx_functions):
    at_load = {name for name in avx_functions if "_GLOBAL__sub_I" in name or "static_init" in name}
    assert not at_load
