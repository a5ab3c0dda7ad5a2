"""Metrics for Weights & Biases; needs the extra `wandb`."""

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.typed_json import to_json

from .config import EngineConfig


class Board:
    """A run at Weights & Biases.

    Its id is kept in the file `wandb-id`, so a resumed run continues the same one.
    """

    def __init__(self, folder: Path, config: EngineConfig):
        """Start or resume the run.

        Raises:
            UserError: the package is not installed.
        """
        try:
            wandb = importlib.import_module("wandb")
        except ImportError:
            raise UserError(
                f"wandb_project is {config.wandb_project!r} and the package wandb is not installed;"
                " install modernbert-jax[wandb]"
            ) from None
        known = folder / "wandb-id"
        if not known.exists():
            write_bytes(known, secrets.token_hex(8).encode())
        self._run = wandb.init(
            project=config.wandb_project,
            id=known.read_text(),
            name=folder.name,
            dir=str(folder),
            resume="allow",
            config=to_json(config),
        )
        # Steps repeated after a kill do not overwrite earlier ones; they appear as further points.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, row: Mapping[str, Any]) -> None:
        """Send a row of metrics."""
        self._run.log({k: x for k, x in row.items() if x is not None})

    def close(self) -> None:
        """Wait until everything has been sent."""
        self._run.finish()
