"""Standard input as a file, for readers that read a file more than once or in several processes."""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

from modernbert_jax.errors import UserError

NAME = "-"
"""What stands for standard input where the path of a file to read is expected."""


def spooled() -> Path:
    """Copy all of standard input into a temporary file, removed when this process ends.

    Raises:
        UserError: it is closed, or cannot be read or stored.
    """
    if sys.stdin is None:
        raise UserError(f"{NAME}: standard input is closed; name a file")
    try:
        with tempfile.NamedTemporaryFile(prefix="modernbert-jax-", delete=False) as file:
            path = Path(file.name)
            atexit.register(path.unlink, missing_ok=True)
            shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{NAME}: standard input cannot be stored ({reason})") from None
    return path
