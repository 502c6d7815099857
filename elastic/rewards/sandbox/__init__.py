"""Programs that nobody has read, run so that they can harm nothing: `run` and what it returns.

docs/sandbox.md says what holds them and what does not.
"""

from elastic.rewards.sandbox.available import SandboxMissing, check_available
from elastic.rewards.sandbox.command import PYTHON
from elastic.rewards.sandbox.limits import Limits, Outcome, Status
from elastic.rewards.sandbox.run import run

__all__ = ["PYTHON", "Limits", "Outcome", "SandboxMissing", "Status", "check_available", "run"]
