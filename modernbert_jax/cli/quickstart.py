"""The command `quickstart`."""

import dataclasses
from pathlib import Path

from modernbert_jax.io.host_memory import keep_freed_on_cpu

from . import output as printing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Train a tokenizer and a small model on Python's own sources, and fill masks with it.

    Takes about four minutes on two CPU cores. Run it again in the same folder to resume.
    """

    output: Path = Path("quickstart")
    """Folder for the tokenizer, the data, the run and its curves."""

    def run(self) -> None:
        """Run or resume the demonstration."""
        from modernbert_jax.train import quickstart

        keep_freed_on_cpu()
        if not quickstart.quickstart(self.output):
            printing.print_stopped(self.output, "quickstart")
