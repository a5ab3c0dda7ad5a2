"""A run's folder: what may start in it, what it starts from, and what it leaves behind."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.files import read_json, write_json
from modernbert_jax.tokenizer import Tokenizer

from .config import PretrainConfig, Stage, differences, to_json
from .data import Batches, Prepared
from .mixture import Order
from .step import init_state

_FREE = ("output", "keep", "log_every", "save_every", "data_threads")
"""Keys that may change between a run and its resumption: they leave its results alone."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration whose data and folder have been checked."""

    config: PretrainConfig
    data: Prepared

    @classmethod
    def open(cls, config: PretrainConfig) -> "Run":
        """Checks all that can be checked before the first step, then claims the folder.

        Raises:
            UserError: data that do not fit, or a folder that holds something else.
        """
        data = Prepared(config.data)
        if data.tokenizer.vocab_size > config.model.vocab_size:
            raise UserError(
                f"{data.folder}: the tokenizer has {data.tokenizer.vocab_size} ids and"
                f" model.vocab_size is {config.model.vocab_size}; pass --model.vocab-size"
                f" {data.tokenizer.vocab_size}"
            )
        if len(data.manifest.components) > 1:
            config = dataclasses.replace(
                config, stages=tuple(_with_mixture(stage, data) for stage in config.stages)
            )
        run = cls(config, data)
        for stage in config.stages:
            run._check_data(stage)
        data.check([stage.length for stage in config.stages])
        run._claim()
        return run

    def order(self, stage: Stage) -> Order:
        """Which component of the data a stage reads when."""
        return self.data.order(stage.length, stage.mixture, stage.epochs)

    def batches(self, stage: Stage, seed: int, read: int) -> Batches:
        """The batches of a stage of which `read` rows have been read."""
        return self.data.batches(
            stage.length,
            stage.rows,
            seed,
            read,
            order=self.order(stage),
            threads=self.config.data_threads,
        )

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return Path(self.config.output)

    @property
    def export_folder(self) -> Path:
        """Where the finished model lies, as a Hugging Face directory."""
        return self.folder / "export"

    @property
    def finished(self) -> bool:
        """Whether the model has been exported: the last thing that a run does."""
        return self.export_folder.exists()

    def initial_params(self) -> Any | None:
        """The parameters of `init_from`; None where the run starts from random ones.

        Raises:
            UserError: a checkpoint whose architecture is not the run's, but for rotary thetas.
        """
        config = self.config
        if not config.init_from:
            return None
        checkpoint = convert.load(config.init_from)
        if checkpoint.head != "masked_lm":
            raise UserError(f"{config.init_from}: its head is {checkpoint.head}, not masked_lm")
        wanted = jax.eval_shape(lambda: init_state(config).params)
        if _shapes(wanted) != _shapes(checkpoint.params):
            found = differences(to_json(config.model), to_json(checkpoint.config))
            raise UserError(
                f"{config.init_from}: its parameters do not fit the model: {'; '.join(found)}"
            )
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), checkpoint.params)

    def export(self, params: Any) -> None:
        """Writes the model of the last stage, with the tokenizer of the data."""
        model = self.config.stage_model(self.config.stages[-1])
        checkpoint = convert.Checkpoint(
            config=_with_token_ids(model, self.data.tokenizer),
            params=jax.tree.map(np.asarray, params),
            files=self.data.tokenizer.files,
        )
        convert.save(checkpoint, self.export_folder, "hf")

    def _check_data(self, stage: Stage) -> None:
        rows, wanted = len(self.order(stage)), stage.steps * stage.rows
        if rows < wanted:
            raise UserError(
                f"{self.data.folder}: stage {stage.name} reads {wanted:,} rows of {stage.length}"
                f" tokens, and the epochs of its components allow {rows:,}; raise epochs, or"
                " shorten the stage"
            )

    def _claim(self) -> None:
        """Writes the resolved configuration, or compares with the one that is there."""
        path, config = self.folder / "config.json", to_json(self.config)
        if path.exists():
            found = differences(read_json(path), config)
            found = [d for d in found if d.split(":")[0] not in _FREE]
            if found:
                raise UserError(
                    f"{self.folder}: holds a run with another configuration ({'; '.join(found)});"
                    " choose another --output"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder}: not empty and not a run; choose another --output or empty it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, config)


def use_compile_cache() -> None:
    """Keeps compiled programs between runs in the user's cache, unless jax was told where."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "modernbert-jax" / "compiled"))


def _with_mixture(stage: Stage, data: Prepared) -> Stage:
    """The stage with the mixture that it reads, the manifest's where it has none of its own."""
    order = data.order(stage.length, stage.mixture, stage.epochs)
    known = {name: data.manifest.components[name].epochs for name in order.names}
    epochs = {name: often for name, often in known.items() if often is not None}
    return dataclasses.replace(stage, mixture=order.weights, epochs=epochs | stage.epochs)


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, params)


def _with_token_ids(model: ModernBertConfig, tokenizer: Tokenizer) -> ModernBertConfig:
    """The architecture with the ids of the tokenizer's special tokens."""
    return dataclasses.replace(
        model,
        bos_token_id=tokenizer.cls_id,
        cls_token_id=tokenizer.cls_id,
        eos_token_id=tokenizer.sep_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
    )
