"""The same bits from every instruction set and any number of threads.

The instruction set is chosen once per process, so every one gets a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instruction_sets import SETS, built, processors_best

ROOT = Path(__file__).parents[2]

PROGRAM = """
import hashlib
import sys
import torch
from elastic import ops
from tests.sampling.draws import DTYPES, SETTINGS, assert_like_reference, batch

torch.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for dtype in DTYPES:
    for vocab, scale in ((1, 1.0), (37, 3.0), (2100, 0.1), (4099, 3.0), (40_000, 1.0), (40_000, 30.0)):
        logits, seeds, positions = batch(7, vocab, dtype, scale)
        logits[1, vocab // 3] = -torch.inf
        for settings in SETTINGS:
            out = ops.sample(logits, seeds, positions, **settings, broken=torch.zeros(1, dtype=torch.int32))
            for values in out[:3]:
                digest.update(values.numpy().tobytes())
        assert_like_reference(logits[2:], seeds[2:], positions[2:], top_p=0.9)
print(ops._extension._C.cpu_isa(), digest.hexdigest())
"""


def run(isa: str, threads: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ELASTIC_CPU_ISA": isa.lower(), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_every_instruction_set_and_thread_count_gives_the_same_bits():
    best = SETS.index(processors_best())
    digests = set()
    for isa, threads in [(isa, 1) for isa in built() if SETS.index(isa) <= best] + [("", 2), ("", 3)]:
        done = run(isa, threads)
        assert done.returncode == 0, done.stderr
        name, digest = done.stdout.split()
        assert name == (isa or SETS[best])
        digests.add(digest)
    assert len(digests) == 1


@pytest.mark.parametrize("isa", ["avx1024"])
def test_an_unknown_instruction_set_is_refused(isa):
    assert "expected default, avx2 or avx512" in run(isa, 1).stderr
