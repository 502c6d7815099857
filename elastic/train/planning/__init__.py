"""What a training run will take, worked out from its configuration before any weight is read."""
