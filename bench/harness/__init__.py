"""How two ways to do one job are timed beside each other: cases, clocks, memory, models."""
