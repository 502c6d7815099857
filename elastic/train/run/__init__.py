"""What a run needs besides rollouts and updates: device, checkpoints, metrics, identity, progress."""
