"""`make stress`: random calls for some minutes, on the CPU kernels on one core and on CUDA's on another.

A fault stops its process, which prints the call as Python and the line that makes it again.
"""

import argparse
import random
import subprocess
import sys
import time
from contextlib import ExitStack

import torch

from tests.cuda_on_cpu.build import load
from tests.cuda_on_cpu.redirect import poisoned_outputs, redirected
from tests.stress.call import Fault
from tests.stress.cases import check, chooses

KERNELS = ("cpu", "cuda_on_cpu")


def main() -> int:
    parser = argparse.ArgumentParser(prog="stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--kernels", choices=KERNELS, help="only these; cpu where --case is given")
    args = parser.parse_args()
    kernels = args.kernels or ("cpu" if args.case is not None else None)
    if kernels is not None:
        return run(args.seed, kernels, args.case, args.minutes)
    command = [sys.executable, "-m", "tests.stress", f"--seed={args.seed}", f"--minutes={args.minutes}"]
    both = [subprocess.Popen([*command, f"--kernels={k}"]) for k in KERNELS]
    return max(process.wait() for process in both)


def run(seed: int, kernels: str, only: int | None, minutes: float) -> int:
    """Cases 0, 1, ... until the time is up, or one."""
    torch.set_num_threads(1)
    end, case = time.monotonic() + 60 * minutes, only or 0
    choose = None
    with ExitStack() as stack:
        if kernels != "cpu":
            shim = load()
            stack.enter_context(redirected())
            shim.set_seed(seed)
            choose = chooses(shim, stack)
        stack.enter_context(poisoned_outputs())
        while True:
            if choose is not None:
                choose(case)
            try:
                check(seed, kernels, case)
            except Fault as fault:
                print(f"{fault.call.text()}\n\n{fault}")
                print(f"make stress SEED={seed} CASE={case} KERNELS={kernels}", flush=True)
                return 1
            case += 1
            if only is not None or time.monotonic() > end:
                break
    count = "1 case" if only is not None else f"{case:,} cases"
    print(f"stress: {kernels}: {count} of seed {seed}: as the reference", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
