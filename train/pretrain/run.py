"""A pretraining run: what is checked before its first step, its phases, and its export."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from modernbert_jax import convert, sharding
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.typed_json import from_json, to_json

from .. import engine
from ..engine import peft
from ..engine.distributed import together, whole
from ..rows.prepared import Prepared
from .batch_size import microbatches
from .config import PretrainConfig, Stage
from .initial_model import adopted, initial_params, with_token_ids
from .objective import MaskedLMObjective, MaskRule, phase


@dataclasses.dataclass(frozen=True)
class PretrainRun:
    """A configuration whose data and folder have been checked."""

    config: PretrainConfig
    data: Prepared
    mesh: Mesh
    inputs: Mapping[str, Any]
    """Fingerprints of the inputs, by name."""

    @classmethod
    def open(cls, config: PretrainConfig, mesh: Mesh | None = None) -> "PretrainRun":
        """Check all that can be checked before the first step, and write nothing.

        Args:
            config: the run.
            mesh: of all devices; by default the one that the configuration asks for.

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
        mesh = config.mesh.make() if mesh is None else mesh
        run = cls(config, data, mesh, _inputs(config, data, path.exists()))
        for objective in run.objectives():
            check_mesh(config.model, objective.stage, dict(run.mesh.shape))
            run._check_data(objective)
        data.check([stage.length for stage in config.stages])
        run.folder.check()
        return run

    @property
    def folder(self) -> engine.RunFolder:
        """The folder of the run."""
        path, config = Path(self.config.output), to_json(self.config)
        return engine.RunFolder(path, config, self.config.FREE, in_tokens, self.inputs)

    def objectives(self) -> list[MaskedLMObjective]:
        """The objective of every stage."""
        mask = MaskRule.of(self.data.tokenizer)
        return [
            MaskedLMObjective(self.config, stage, mask, self.data, self.model(stage))
            for stage in self.config.stages
        ]

    def phases(self) -> list[engine.Phase]:
        """The phases for the engine: one per stage."""
        return [phase(objective, self.mesh) for objective in self.objectives()]

    def initial_params(self) -> Any | None:
        """Load the parameters to start from; None where the run starts from random ones."""
        return initial_params(self.config, self.data.tokenizer)

    def model(self, stage: Stage) -> ModernBertConfig:
        """The architecture in a stage, with the ids of the data's special tokens."""
        return with_token_ids(self.config.stage_model(stage), self.data.tokenizer)

    def export(self, outcome: engine.Outcome, program: engine.Program) -> None:
        """Write the model of the last stage, with the tokenizer of the data.

        Adapters are merged; `adapter/` holds them alone, in PEFT's format.
        """
        model = self.model(self.config.stages[-1])
        adapters = program.learner.partition.adapters
        if adapters is not None:
            path, base = self.folder.path / "adapter", self.config.init_from
            trained, rows = whole(outcome.trained, self.mesh), names.table(model, "masked_lm")
            peft.export(path, adapters, trained, rows, "masked_lm", base)
        checkpoint = convert.Checkpoint(
            config=model,
            params=program.whole(outcome.trained, outcome.fixed),
            files=self.data.tokenizer.files,
        )
        if jax.process_index() == 0:
            convert.save(checkpoint, self.folder.export, "hf")
        together("exported")

    def _check_data(self, objective: MaskedLMObjective) -> None:
        stage = objective.stage
        rows, needed = len(objective.order), stage.batches.rows
        if rows < needed:
            raise UserError(
                f"{self.data.folder}: stage {stage.name} reads {needed:,} rows of {stage.length}"
                f" tokens, and the epochs of its components allow {rows:,}; raise epochs, or"
                " shorten the stage"
            )


def pretrain(config: PretrainConfig, profile_steps: tuple[int, int] | None = None) -> bool:
    """Run or resume a pretraining run, and export the model at its end.

    Args:
        config: the run.
        profile_steps: first and last step that jax's profiler traces into `profile/`.

    Returns:
        False if the run was asked to stop; then a checkpoint has been saved.

    Raises:
        UserError: a configuration, data or folder that cannot be used.
        RunStopped: too many consecutive steps were skipped.
    """
    config.check_output()
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        run = PretrainRun.open(config, mesh)
        folder = run.folder
        if folder.export.exists():
            folder.say_finished()
            return True
        with folder.held():
            return _continue(run, profile_steps)


def _continue(run: PretrainRun, profile_steps: tuple[int, int] | None) -> bool:
    """Begin or resume a run whose folder is held."""
    folder = run.folder
    if folder.export.exists():  # another process has finished it since
        return True
    params = None if folder.started else run.initial_params()  # before anything is written
    folder.claim(run.data.tokenizer)
    phases = run.phases()
    outcome = engine.run(
        phases,
        run.config,
        folder,
        lambda: run.initial_params() if params is None else params,
        profile_steps=profile_steps,
    )
    if outcome.finished:
        run.export(outcome, phases[-1].program)
    return outcome.finished


def in_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON, complete and with `Stage.in_tokens`, to compare runs."""
    return to_json(from_json(PretrainConfig, config).in_tokens)


def check_mesh(model: ModernBertConfig, stage: Stage, sizes: Mapping[str, int]) -> None:
    """Raise `UserError` for batches, rows or heads that a mesh cannot divide evenly.

    Args:
        model: the architecture.
        stage: the stage with its batches.
        sizes: of the mesh's axes.
    """
    for batches in stage.batches.phases:
        rows = batches.rows // microbatches(batches.rows, stage.microbatch_rows)
        numbers = {"rows": rows, "tokens": stage.length, "heads": model.num_attention_heads}
        for kind, number in numbers.items():
            pieces = math.prod(sizes[axis] for axis in getattr(sharding.RULES, kind))
            if number % pieces:
                raise UserError(
                    f"stage {stage.name}: {number:,} {_DIVIDED[kind]} cannot be divided among"
                    f" {pieces} devices (mesh {', '.join(getattr(sharding.RULES, kind))});"
                    " change one of them"
                )


_DIVIDED = {"rows": "rows of a microbatch", "tokens": "tokens of a row", "heads": "attention heads"}


def _inputs(config: PretrainConfig, data: Prepared, started: bool) -> dict[str, Any]:
    """What the rows, the tokenizer and the initial weights are.

    A run that has started may do without its initial weights.
    """
    inputs: dict[str, Any] = {
        "data": data.fingerprint([stage.length for stage in config.stages]),
        "tokenizer": fingerprint.of_contents(data.tokenizer.files),
    }
    if config.init_from:
        try:
            checkpoint = convert.load(convert.locate(config.init_from), later=True)
        except UserError:
            if not started:
                raise
        else:
            inputs["init_from"] = convert.identity(checkpoint)
    return inputs


def _with_mixture(stage: Stage, data: Prepared) -> Stage:
    """The stage with the mixture that it reads; the manifest's where it has none of its own."""
    order = data.order(stage.length, stage.mixture, stage.epochs)
    known = {name: data.manifest.components[name].epochs for name in order.names}
    epochs = {name: often for name, often in known.items() if often is not None}
    return dataclasses.replace(stage, mixture=order.weights, epochs=epochs | stage.epochs)
