"""What every CUDA kernel costs on chip, from the compiler: `python .ci/kernel_resources.py`.

Compiles csrc/cuda/*.cu as CMakeLists.txt does (same architectures, warnings are errors; no GPU and no torch
needed) and reads ptxas' report: registers, static shared memory and stack of each kernel on each
architecture. A kernel that spills registers is an error. The table stands in docs/kernels.md.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- resources -->", "<!-- end of resources -->"
FLAGS = ("-std=c++17", "-O3", "-lineinfo", f"-I{ROOT / 'csrc'}", "-Werror", "all-warnings", "-Xptxas", "-v")


@dataclass(frozen=True)
class Resources:
    """One kernel on one architecture; memory in bytes.

    Attributes:
        shared: static shared memory; what a launch asks for dynamically is not in the compiler's report.
        spills: bytes of spill stores and loads.
    """

    kernel: str
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int


def architectures(cmake: str) -> list[str]:
    """Numbers of the architectures that CMakeLists.txt builds for, `["80", "90", "100"]`."""
    found = re.search(r'set\(ELASTIC_CUDA_ARCHS "([^"]*)"', cmake)
    if not found:
        raise ValueError("kernel_resources: CMakeLists.txt: expected a default of ELASTIC_CUDA_ARCHS")
    return [entry.split("-")[0] for entry in found[1].split(";")]


def parse(report: str) -> list[Resources]:
    """The kernels of a demangled `ptxas -v` report.

    Raises:
        ValueError: a kernel without its counts: ptxas reports in another form than this reads.
    """
    found = []
    entries = re.split(r"^.*Compiling entry function '", report, flags=re.MULTILINE)[1:]
    for entry in entries:
        head = re.match(r"(.*)' for 'sm_(\w+)'", entry)
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", entry)
        used = re.search(r"Used (\d+) registers", entry)
        if not (head and stack and used):
            raise ValueError(f"kernel_resources: expected ptxas -v's counts, got: {entry[:200]}")
        shared = re.search(r"(\d+) bytes smem", entry)
        found.append(
            Resources(
                short_name(head[1]),
                f"sm_{head[2]}",
                int(used[1]),
                int(shared[1]) if shared else 0,
                int(stack[1]),
                int(stack[2]) + int(stack[3]),
            )
        )
    return found


def short_name(kernel: str) -> str:
    """`void elastic::cuda::(anonymous namespace)::f<elastic::cuda::Bf16>(...)` -> `f<Bf16>`."""
    for noise in ("(anonymous namespace)::", "elastic::cuda::", "elastic::"):
        kernel = kernel.replace(noise, "")
    kernel = kernel.removeprefix("void ")
    depth = 0
    for i, letter in enumerate(kernel):  # arguments begin at the first ( outside template brackets
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return kernel[:i]
    return kernel


def nvcc_version() -> str:
    out = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", out)
    if not found:
        raise ValueError(f"kernel_resources: expected a version in nvcc --version, got: {out}")
    return found[1]


def compile_all(sources: Sequence[Path], archs: Sequence[str], jobs: int) -> list[Resources]:
    """Compiles every source for every architecture, and once to an object with PTX of the last one.

    Raises:
        SystemExit: the compiler's own output, where a source does not compile without warnings.
    """
    cxxfilt = next((tool for tool in ("cu++filt", "c++filt") if shutil.which(tool)), None)
    if cxxfilt is None:
        raise SystemExit("kernel_resources: neither cu++filt nor c++filt found")

    def run(job: tuple[Path, str | None]) -> str:
        source, arch = job
        with tempfile.TemporaryDirectory() as folder:
            if arch is None:  # the host pass, too, has warnings
                target = ["-c", "-gencode", f"arch=compute_{archs[-1]},code=compute_{archs[-1]}"]
            else:
                target = ["-cubin", f"-arch=sm_{arch}"]
            done = subprocess.run(
                ["nvcc", *FLAGS, *target, str(source), "-o", str(Path(folder) / "out")],
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise SystemExit(f"{done.stdout}{done.stderr}{source} does not compile for {arch or 'PTX'}")
        return done.stderr

    # Largest first, so that two workers end together.
    todo = [(s, a) for s in sorted(sources, key=lambda s: -s.stat().st_size) for a in [*archs, None]]
    with ThreadPoolExecutor(jobs) as pool:
        report = "".join(pool.map(run, todo))
    demangled = subprocess.run([cxxfilt], input=report, check=True, capture_output=True, text=True).stdout
    return parse(demangled)


def table(found: Iterable[Resources]) -> str:
    """Markdown, a kernel a row; where architectures differ, their figures stand in order."""
    by_kernel: dict[str, list[Resources]] = defaultdict(list)
    for one in found:
        by_kernel[one.kernel].append(one)
    archs = sorted({one.arch for many in by_kernel.values() for one in many}, key=lambda a: int(a[3:]))

    def cells(many: list[Resources], field: str) -> str:
        values: dict[str, int] = {}
        for one in many:  # two files may instantiate kernels of one name: the larger figure stands
            values[one.arch] = max(values.get(one.arch, 0), getattr(one, field))
        if len(values) == len(archs) and len(set(values.values())) == 1:
            return str(next(iter(values.values())))
        return " / ".join(str(values.get(arch, "-")) for arch in archs)

    lines = [
        f"| kernel ({' / '.join(archs)}) | registers | static shared memory, bytes | stack, bytes | spills |",
        "|---|---|---|---|---|",
    ]
    for kernel, many in sorted(by_kernel.items()):
        row = " | ".join(cells(many, field) for field in ("registers", "shared", "stack", "spills"))
        lines.append(f"| `{kernel}` | {row} |")
    return "\n".join(lines)


def section(found: Iterable[Resources], version: str) -> str:
    """What stands between the marks of docs/kernels.md."""
    return f"{BEGIN}\nnvcc {version}:\n\n{table(found)}\n{END}"


def replaced(page: str, new: str) -> str:
    """`page` with the part between its marks replaced."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"kernel_resources: docs/kernels.md: expected the marks {BEGIN} and {END}")
    return before + new + after


def out_of_date(page: str, new: str) -> str | None:
    """Why the committed section is not the truth any more, or None.

    Under the same nvcc everything must agree; another one may allot registers differently, so only the
    kernels are compared.
    """

    def kernels(text: str) -> set[str]:
        return set(re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE))

    def version(text: str) -> str:
        return "".join(re.findall(r"^nvcc .*:$", text, re.MULTILINE))

    old = page.partition(BEGIN)[2].partition(END)[0]
    if extra := kernels(old) ^ kernels(new):
        return f"kernels differ: {', '.join(sorted(extra))}"
    if version(old) == version(new) and old.strip() not in new:
        return "figures differ under the same nvcc"
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail where docs/kernels.md is out of date")
    parser.add_argument("--write", action="store_true", help="update docs/kernels.md")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time")
    args = parser.parse_args(arguments)
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    found = compile_all(sources, architectures((ROOT / "CMakeLists.txt").read_text()), args.jobs)
    print(table(found))
    if spilling := sorted({one.kernel for one in found if one.spills}):
        sys.exit(f"kernel_resources: spills registers: {', '.join(spilling)}")
    print(f"{len(found)} kernel images from {len(sources)} sources, 0 spills")
    new = section(found, nvcc_version())
    if args.write:
        PAGE.write_text(replaced(PAGE.read_text(), new))
    elif args.check and (why := out_of_date(PAGE.read_text(), new)):
        sys.exit(f"docs/kernels.md: {why}; run: python .ci/kernel_resources.py --write")


if __name__ == "__main__":
    main()
