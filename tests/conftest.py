"""Puts `tests/support` on the path: builders that tests, goldens and live comparisons share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
