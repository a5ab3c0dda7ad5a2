"""Format `flexbert`: checkpoints of the research code, Composer's `.pt` files."""

from .research_file import LATEST, SUFFIX, read, write, write_file

__all__ = ["LATEST", "SUFFIX", "read", "write", "write_file"]
