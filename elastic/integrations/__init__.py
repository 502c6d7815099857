"""Budgets in engines and trainers that people already run: a room for each; none knows another's."""
