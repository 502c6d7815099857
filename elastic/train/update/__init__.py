"""From graded completions to new weights: packed forward passes, the loss, optimizer steps."""
