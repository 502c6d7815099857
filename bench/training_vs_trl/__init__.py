"""GRPO by `elastic.train` and by TRL's `GRPOTrainer`: whole trainings, and one update on the same rollouts.

Each training and each update is a process of its own (`child`), because a peak of memory is a process's.
"""
