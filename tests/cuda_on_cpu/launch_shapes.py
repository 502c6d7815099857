"""The shapes in which a row kernel may be launched on the shim."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from tests.cuda_on_cpu.redirect import poisoned_outputs, redirected

# Blocks that share a row, 0: it is streamed; threads of a block; which kernel, unless it is the logits pass.
Shape = tuple[int, int] | tuple[int, int, str]
TABLE: Shape = (-1, 0)  # the kernels' own choice
RING: Shape = (-1, 0, "ring")  # the ring's own choice
DIRECT: Shape = (-1, 0, "ring_direct")  # whose threads store the gradient


@contextmanager
def shaped(shim: ModuleType) -> Iterator[Callable[[Shape], None]]:
    """Ops run on the CUDA kernels, in the launch shape last asked for; device and shape are put back."""

    def choose(shape: Shape) -> None:
        assert shim.set_logits_launch(*shape)

    shim.set_seed(0)
    try:
        with poisoned_outputs(), redirected():
            yield choose
    finally:
        shim.set_logits_launch(*TABLE)
        shim.set_device()
