"""`elastic demo`: trains and evaluates the embedded model under budgets, in minutes on two cores.

1. The untrained model under many budgets: vanilla (one cap, cut hard) and separate budgeting.
2. E1: GRPO with rollouts under one pair of budgets (t*, s*). The control: the same under one hard cap of
   t* + s*.
3. Both trained models under the same budgets, almost all of which differ from those of training.
4. demo.json, demo.png, traces.txt, a table, and sentences that say where E1 helps and where it does not.

`choose` chose the settings, on the validation split; `seeds` repeats the demo with several training seeds.
"""

from elastic.commands.demo.config import DemoConfig
from elastic.commands.demo.story import run

__all__ = ["DemoConfig", "run"]
