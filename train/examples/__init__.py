"""Runs on examples of a few texts each: what fine-tuning and retrieval training share."""
