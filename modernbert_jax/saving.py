"""How `ModernBert` is written: into a directory, or to the hub."""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.io import hub
from modernbert_jax.quantization import Weights


class Saving:
    """The part of `ModernBert` that writes models; those in fewer bits than float32 are refused."""

    params: dict[str, Any]
    _stored: convert.Checkpoint
    _folder: Path | None
    _weights: Weights
    _dtypes: Any

    def save_pretrained(self, directory: str | os.PathLike, format: str = "hf") -> None:
        """Write a new directory, whole or not at all, in the dtypes of the loaded checkpoint.

        Raises:
            UserError: the directory holds something, or the weights were loaded in fewer bits.
        """
        if self._weights != "float32":
            raise UserError(f"weights are {self._weights}; load the model in float32 to save it")
        params = jax.tree.map(lambda x, d: np.asarray(x).astype(d), self.params, self._dtypes)
        convert.save(dataclasses.replace(self._stored, params=params), directory, format)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        commit_message: str = "Upload a model of modernbert-jax",
        token: str | None = None,
    ) -> str:
        """Upload the model in format `hf` with its card; returns the address of the commit.

        Args:
            repo_id: `owner/name`, created if it is not there.
            private: whether a new repository is private; None is the owner's default.
            commit_message: of the upload.
            token: of an account that may write; None is the one that is logged in.

        Raises:
            UserError: the hub refuses, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            source = self._folder or Path(folder)
            for name in ("task.json", "README.md"):
                if (source / name).is_file():
                    shutil.copy(source / name, Path(folder) / "model")
            return hub.upload(Path(folder) / "model", repo_id, private, commit_message, token)
