"""Packed rows made of text files: the `prepare` and `data` commands."""
