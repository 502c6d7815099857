"""`elastic demo`: the whole story on the embedded model, in minutes on two cores.

1. The untrained model under many budgets: vanilla (one cap, cut hard) and separate budgeting.
2. E1: GRPO with rollouts under one pair of budgets (t*, s*).
3. The trained model under the same budgets, almost all of which it never saw.
4. demo.json, demo.png, traces.txt and one table.
"""

from elastic.demo.config import DemoConfig
from elastic.demo.story import run

__all__ = ["DemoConfig", "run"]
