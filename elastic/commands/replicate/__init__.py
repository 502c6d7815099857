"""`make replicate`: every method of the paper, trained and evaluated side by side, and its claims tested.

1. One base: the embedded model, taught to read the requests of L1.
2. Trainings from it, each with several seeds (`plan`).
3. All of them, and the base, answer the same test problems of their seed under many budgets (`answers`).
4. `replicate.json`, `replicate.md`, `replicate.png`: rows, and each claim as holds, does not hold or open,
   by a rule that was written before the run (`claims`).

docs/replicate.md says how the settings were chosen.
"""

from elastic.commands.replicate.config import ReplicateConfig
from elastic.commands.replicate.story import run

__all__ = ["ReplicateConfig", "run"]
