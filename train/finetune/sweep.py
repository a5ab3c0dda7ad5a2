"""A grid of fine-tuning runs in one process: one model, one set of data, one compilation.

Every run has a folder of its own below the sweep's, and is resumed like any other; what is finished
is not done again, so that a grid may also grow.
"""

import dataclasses
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from modernbert_jax.errors import UserError

from ..progress import Progress
from ..run import together, use_compile_cache
from . import intermediate, sweep_table
from .config import FinetuneConfig
from .loop import finetune, train
from .session import Session


class Setting(NamedTuple):
    """What runs differ in beside their seed."""

    learning_rate: float
    weight_decay: float
    epochs: float

    def __str__(self) -> str:
        return f"lr{self.learning_rate:g}-wd{self.weight_decay:g}-ep{self.epochs:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Values of which every combination is run; none given is the configuration's own."""

    learning_rate: tuple[float, ...] = ()
    """The highest of the schedule."""
    weight_decay: tuple[float, ...] = ()
    epochs: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    """Means and deviations are over these."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise UserError(f"grid.{field.name} holds {twice[0]:g} more than once")

    def settings(self, config: FinetuneConfig) -> list[Setting]:
        """All combinations but for seeds, in the order of the values."""
        axes = [getattr(self, name) or (getattr(config, name),) for name in Setting._fields]
        return [Setting(*map(float, values)) for values in itertools.product(*axes)]

    def seeds(self, config: FinetuneConfig) -> tuple[int, ...]:
        """The seeds of every setting."""
        return self.seed or (config.seed,)


def run_of(config: FinetuneConfig, setting: Setting, seed: int) -> FinetuneConfig:
    """The configuration of one run, in its folder."""
    output = str(Path(config.output) / "runs" / f"{setting}-seed{seed}")
    return dataclasses.replace(config, output=output, seed=seed, **setting._asdict())


def sweep(
    config: FinetuneConfig, grid: Grid, keep: Literal["best", "all"] = "best"
) -> dict[str, Any] | None:
    """Runs or resumes a grid, and writes its table as `sweep.json`, `.txt` and `.png`.

    Args:
        config: what all runs share; `output` is the folder of the sweep.
        grid: what they differ in.
        keep: whether models and checkpoints of all runs stay on disk, or only the model of the best
            run: of the setting with the best mean, the seed with the best score.

    Returns the table (see `sweep_table.summary`), or None if it was asked to stop before; then a
    checkpoint of the current run has been saved. Raises what `finetune` does.
    """
    runs = [
        [run_of(config, setting, seed) for seed in grid.seeds(config)]
        for setting in grid.settings(config)
    ]  # wrong values are told before anything is read
    config = intermediate.prepared(config, finetune)
    if config is None:
        return None
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        use_compile_cache()
        session = Session.open(config, mesh)
        if not session.data.validation:
            raise UserError("a sweep chooses by validation examples; give --validation")
        return _sweep(session, runs, Path(config.output), keep == "all")


def _sweep(
    session: Session, runs: Sequence[Sequence[FinetuneConfig]], folder: Path, keep_all: bool
) -> dict[str, Any] | None:
    results: list[tuple[FinetuneConfig, Mapping[str, Any]]] = []
    total, table = sum(map(len, runs)), {}
    with Progress(total, "run") as progress:
        for of_setting in runs:
            for planned in of_setting:
                run = dataclasses.replace(
                    planned, model=session.config.model, intermediate=session.config.intermediate
                )
                progress.say(f"run {len(results) + 1:,}/{total:,}  {Path(run.output).name}")
                result = train(session, run)
                if result is None:
                    return None
                results.append((run, result))
                table = sweep_table.summary(results)
                if jax.process_index() == 0:
                    sweep_table.write(table, folder)
            if not keep_all:
                _remove_all_but(table["best_run"], [run for run, _ in results])
        if jax.process_index() == 0:
            sweep_table.draw(table, folder)
    return table


def _remove_all_but(kept: str, runs: Sequence[FinetuneConfig]) -> None:
    """Leaves of every other run only what it found, and of that one the model as well."""
    together("finished")
    for run in runs if jax.process_index() == 0 else ():
        for name in ("checkpoints", "export"):
            if (run.output, name) != (kept, "export"):
                shutil.rmtree(Path(run.output) / name, ignore_errors=True)
