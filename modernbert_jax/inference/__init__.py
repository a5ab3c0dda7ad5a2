"""Inference over documents of any number and length: packed rows, batches in flight, one runner."""
