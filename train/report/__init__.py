"""Curves of runs as PNG and HTML."""
