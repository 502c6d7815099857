"""What a run keeps besides learning: its device, checkpoints, metrics, identity, and where it stands."""
