"""The row kernels are compiled once per instruction set; each must be right, not only this machine's choice.

The choice is made once per process, so every set gets a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instruction_sets import SETS, built, processors_best

ROOT = Path(__file__).parents[2]

PROGRAM = """
import torch
from elastic import ops, reference
from tests.loss import test_odd_rows
from tests.loss.batches import DTYPES, GRADIENT_ERROR, VALUE_ERROR, assert_gradient_near, assert_near
from tests.loss.batches import loss_and_gradient, random_batch

torch.set_num_threads(1)
for dtype in DTYPES:
    for vocab in (5, 301, 4097):
        for options in ({}, {"entropy_coef": 0.1}, {"loss": "gspo"}):
            batch = random_batch(dtype, vocab=vocab)
            batch.logits[:, 3] = -torch.inf
            batch.targets[batch.targets == 3] = 0
            wide = batch.double()
            got = loss_and_gradient(
                ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), **options
            )
            want = loss_and_gradient(
                reference.grpo_loss, *wide.positional(wide.logits), **wide.keywords(), **options
            )
            for name in got[0]._fields:
                assert_near(getattr(got[0], name), getattr(want[0], name), VALUE_ERROR[dtype], name)
            assert_gradient_near(got[1], want[1], GRADIENT_ERROR[dtype])
            batch.logits[1, vocab - 1] = torch.nan
            assert ops.token_logprobs(batch.logits, batch.targets)[0][1].isnan()
    for vocab in (301, 4199):
        for options in ({}, {"softcap": 30.0, "temperature": 0.1}):
            test_odd_rows.test_token_logprobs_of_odd_rows_match_float64(dtype, vocab, options)
            test_odd_rows.test_grpo_loss_of_odd_rows_matches_float64(dtype, vocab, options, {})
print(ops._extension._C.cpu_isa())
"""


def run(isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ELASTIC_CPU_ISA": isa.lower(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("isa", built())
def test_every_instruction_set_matches_float64(isa):
    best = processors_best()
    done = run(isa)
    if SETS.index(isa) <= SETS.index(best):
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == isa
    else:
        assert f"this processor's best is {best}" in done.stderr, (
            "a set the processor lacks is refused by name"
        )
