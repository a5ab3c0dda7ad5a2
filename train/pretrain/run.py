"""A run's folder: what may start in it, what it starts from, and what it leaves behind."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax import convert, sharding
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io.files import read_json, whole_directory, write_json
from modernbert_jax.io.typed_json import differences, from_json, to_json
from modernbert_jax.tokenizer import Tokenizer

from ..rows.batches import Batches
from ..rows.mixture import Order
from ..rows.prepared import Prepared
from .batch_size import microbatches
from .config import PretrainConfig, Stage
from .start import adopted, initial_params, with_token_ids

PLAN = "plan.png"
"""What a dry run may have left in the folder."""

_FREE = (
    "output",
    "mesh",
    "keep",
    "keep_every",
    "log_every",
    "save_every",
    "skip_limit",
    "data_threads",
    "wandb_project",
)
"""Keys that may change between a run and its resumption: they leave its results alone."""


_CUT = {"rows": "rows of a microbatch", "tokens": "tokens of a row", "heads": "attention heads"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration whose data and folder have been checked."""

    config: PretrainConfig
    data: Prepared
    mesh: Mesh

    @classmethod
    def open(cls, config: PretrainConfig, mesh: Mesh | None = None) -> "Run":
        """Checks all that can be checked before the first step, and writes nothing.

        Args:
            config: What to run.
            mesh: Of all devices; by default the one that the configuration asks for.

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
        if len(data.manifest.components) > 1:
            config = dataclasses.replace(
                config, stages=tuple(_with_mixture(stage, data) for stage in config.stages)
            )
        run = cls(config, data, config.mesh.make() if mesh is None else mesh)
        for stage in config.stages:
            check_mesh(config.model, stage, dict(run.mesh.shape))
            run._check_data(stage)
        data.check([stage.length for stage in config.stages])
        run._check_folder()
        return run

    def order(self, stage: Stage) -> Order:
        """Which component of the data a stage reads when."""
        return self.data.order(stage.length, stage.mixture, stage.epochs)

    def batches(self, stage: Stage, size: int, seed: int, read: int) -> Batches:
        """The batches of `size` rows of a stage of which `read` rows have been read."""
        return self.data.batches(
            stage.length,
            size,
            seed,
            read,
            order=self.order(stage),
            sharding=sharding.rows_sharding(self.mesh),
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
            params=whole(params, self.mesh),
            files=self.data.tokenizer.files,
        )
        if jax.process_index() == 0:
            convert.save(checkpoint, self.export_folder, "hf")
        together("exported")

    def _check_data(self, stage: Stage) -> None:
        rows, wanted = len(self.order(stage)), stage.batches.rows
        if rows < wanted:
            raise UserError(
                f"{self.data.folder}: stage {stage.name} reads {wanted:,} rows of {stage.length}"
                f" tokens, and the epochs of its components allow {rows:,}; raise epochs, or"
                " shorten the stage"
            )

    def claim(self) -> None:
        """Writes the resolved configuration and the tokenizer."""
        claim(self.folder, to_json(self.config), self.data.tokenizer)

    def _check_folder(self) -> None:
        """Refuses a folder that holds something else, or a run with another configuration."""
        if self.started:
            before = read_json(self.folder / "config.json")
            found = differences(before, to_json(self.config))
            found = [d for d in found if d.split(":")[0].split(".")[0] not in _FREE]
            if found:
                raise UserError(
                    f"{self.folder}: holds a run with another configuration ({'; '.join(found)});"
                    " choose another --output"
                )
        elif self.folder.exists() and any(p.name != PLAN for p in self.folder.iterdir()):
            raise UserError(
                f"{self.folder}: not empty and not a run; choose another --output or empty it"
            )


def check_mesh(model: ModernBertConfig, stage: Stage, sizes: dict[str, int]) -> None:
    """Refuses batches, rows or heads that a mesh of these axis sizes cannot cut evenly."""
    pieces = {kind: math.prod(sizes[a] for a in getattr(sharding.RULES, kind)) for kind in _CUT}
    for segment in stage.batches.segments:
        rows = segment.rows // microbatches(segment.rows, stage.microbatch_rows)
        numbers = {"rows": rows, "tokens": stage.length, "heads": model.num_attention_heads}
        for kind, number in numbers.items():
            if number % pieces[kind]:
                raise UserError(
                    f"stage {stage.name}: {number:,} {_CUT[kind]} cannot be divided among"
                    f" {pieces[kind]} devices (mesh {', '.join(getattr(sharding.RULES, kind))});"
                    " change one of them"
                )


def whole(params: Any, mesh: Mesh) -> Any:
    """Parameters from all devices, as numpy arrays in every process."""
    gathered = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(params)
    return jax.tree.map(np.asarray, gathered)


def together(what: str) -> None:
    """Waits until every process has come this far."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def claim(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Makes a folder that all processes have checked a run's: its configuration and tokenizer."""
    together("checked")  # none finds the folder half claimed
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)
        if not (folder / "tokenizer").exists():
            with whole_directory(folder / "tokenizer") as temporary:
                tokenizer.save(temporary)
    together("claimed")


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
