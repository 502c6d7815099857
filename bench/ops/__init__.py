"""One file per op, rollout or training step: what is timed, against what, and how its outputs are checked."""
