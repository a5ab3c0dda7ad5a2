"""Presets of fine-tuning: modules with config() that returns a FinetuneConfig."""
