"""Training: data, optimizer, schedule, loop, checkpoints and metrics."""
