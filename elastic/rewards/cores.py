"""How many answers are graded at once."""

import os


def default_workers() -> int:
    """Cores this process may run on, its share where a launcher started several processes on the machine.

    Affinity is seen, container quotas are not.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
