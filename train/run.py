"""A run's folder: what may start in it, what it starts from, and what it leaves behind."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.files import read_json, whole_directory, write_json

from .config import PretrainConfig, Stage, differences, from_json, to_json
from .data import Prepared
from .start import adopted, initial_params, with_token_ids

PLAN = "plan.png"
"""What a dry run may have left in the folder."""

_FREE = ("output", "keep", "keep_every", "log_every", "save_every", "skip_limit", "wandb_project")
"""Keys that may change between a run and its resumption: they leave its results alone."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration whose data and folder have been checked."""

    config: PretrainConfig
    data: Prepared

    @classmethod
    def open(cls, config: PretrainConfig) -> "Run":
        """Checks all that can be checked before the first step, and writes nothing.

        Raises:
            UserError: data that do not fit, or a folder that holds something else.
        """
        data = Prepared(config.data)
        path = Path(config.output) / "config.json"
        if config.init_model == "adopted" and path.exists():
            model = from_json(PretrainConfig, read_json(path), str(path)).model
            config = dataclasses.replace(config, model=model)
        else:
            config = adopted(config, data.tokenizer)
        if data.tokenizer.vocab_size > config.model.vocab_size:
            raise UserError(
                f"{data.folder}: the tokenizer has {data.tokenizer.vocab_size} ids and"
                f" model.vocab_size is {config.model.vocab_size}; pass --model.vocab-size"
                f" {data.tokenizer.vocab_size}"
            )
        for stage in config.stages:
            data.rows("train", stage.length)
        run = cls(config, data)
        run._check_folder()
        return run

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return Path(self.config.output)

    @property
    def export_folder(self) -> Path:
        """Where the finished model lies, as a Hugging Face directory."""
        return self.folder / "export"

    @property
    def started(self) -> bool:
        """Whether the folder is this run's already."""
        return (self.folder / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether the model has been exported: the last thing that a run does."""
        return self.export_folder.exists()

    def initial_params(self) -> Any | None:
        """The parameters to start from; None where the run starts from random ones."""
        return initial_params(self.config, self.data.tokenizer)

    def model(self, stage: Stage) -> ModernBertConfig:
        """The architecture in a stage, with the ids of the data's special tokens."""
        return with_token_ids(self.config.stage_model(stage), self.data.tokenizer)

    def export(self, params: Any) -> None:
        """Writes the model of the last stage, with the tokenizer of the data."""
        checkpoint = convert.Checkpoint(
            config=self.model(self.config.stages[-1]),
            params=jax.tree.map(np.asarray, params),
            files=self.data.tokenizer.files,
        )
        convert.save(checkpoint, self.export_folder, "hf")

    def claim(self) -> None:
        """Writes the resolved configuration and the tokenizer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", to_json(self.config))
        if not (self.folder / "tokenizer").exists():
            with whole_directory(self.folder / "tokenizer") as temporary:
                self.data.tokenizer.save(temporary)

    def _check_folder(self) -> None:
        """Refuses a folder that holds something else, or a run with another configuration."""
        if self.started:
            before = read_json(self.folder / "config.json")
            found = differences(before, to_json(self.config))
            found = [d for d in found if d.split(":")[0] not in _FREE]
            if found:
                raise UserError(
                    f"{self.folder}: holds a run with another configuration ({'; '.join(found)});"
                    " choose another --output"
                )
        elif self.folder.exists() and any(p.name != PLAN for p in self.folder.iterdir()):
            raise UserError(
                f"{self.folder}: not empty and not a run; choose another --output or empty it"
            )


def use_compile_cache() -> None:
    """Keeps compiled programs between runs in the user's cache, unless jax was told where."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "modernbert-jax" / "compiled"))
