"""`grpo_loss` under pytest-benchmark: `pytest bench --benchmark-enable`.

Ratios come from `python -m bench.grpo_loss`, which interleaves its variants.
"""

import pytest
import torch

from bench.grpo_loss import DTYPES, Inputs, eager_loss, fused_loss, step

TOKENS, VOCAB = 64, 151_936
JOBS = {
    "eager": eager_loss,
    "fused": lambda logits, inputs: fused_loss(logits, inputs, inplace=False),
    "fused, in place": lambda logits, inputs: fused_loss(logits, inputs, inplace=True),
}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("variant", JOBS)
def test_forward_and_backward(benchmark, variant, dtype):
    torch.set_num_threads(1)
    inputs = Inputs.random(TOKENS, VOCAB, dtype, seed=0)
    work = inputs.logits.clone()

    def prepare():
        work.copy_(inputs.logits)

    benchmark.pedantic(lambda: step(JOBS[variant], work, inputs), setup=prepare, rounds=5, warmup_rounds=1)
