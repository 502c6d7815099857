"""`elastic demo`: the whole story on the embedded model, in minutes on two cores.

1. The untrained model under many budgets: vanilla (one cap, cut hard) and separate budgeting.
2. E1: GRPO with rollouts under one pair of budgets (t*, s*). The control: the same under one hard cap of
   t* + s*.
3. Both trained models under the same budgets, almost all of which they never saw.
4. demo.json, demo.png, traces.txt, one table, and where E1 helps and where it does not.

`choose` chose the settings, on the validation split; `seeds` repeats the demo with several training seeds.
"""

from elastic.commands.demo.config import DemoConfig
from elastic.commands.demo.story import run

__all__ = ["DemoConfig", "run"]
