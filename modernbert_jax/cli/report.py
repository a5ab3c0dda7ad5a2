"""The command `report`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Draw loss, learning rate, speed and more of training runs, as PNG and as one HTML page."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs; several are drawn in the same panels."""
    output: Path | None = None
    """Path of the two files, without ending; existing ones are replaced. None, or a folder, is
    `report` in the first run's folder or in that folder."""

    def run(self) -> None:
        """Draw, and print the paths."""
        from modernbert_jax.train.report import curves

        for path in curves.report(self.runs, self.output):
            print(path)
