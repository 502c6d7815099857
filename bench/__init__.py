"""Benches. Each compares variants of one job inside one process: `python -m bench.grpo_loss`."""
