"""Checkpoints in every format: read, written and compared. Knows the library, not training."""
