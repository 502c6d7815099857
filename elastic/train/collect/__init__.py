"""From problems to graded completions: prompts, budgets, rollouts, evaluations."""
