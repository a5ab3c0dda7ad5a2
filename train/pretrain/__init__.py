"""Pretraining: objectives, stages, initial weights, commands."""
