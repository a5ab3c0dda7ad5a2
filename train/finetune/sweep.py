"""Sweep: a grid of fine-tuning runs in one process, with one model, data set and compilation.

Every run has its own folder within the sweep's and is resumed like any other run. Finished runs are
not repeated, so a grid may grow.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import Progress

from .. import engine
from ..engine.distributed import together
from . import sweep_table
from .config import FinetuneConfig
from .grid import Grid
from .session import Session
from .training import train


def sweep(
    config: FinetuneConfig, grid: Grid, keep_models: Literal["best", "all"] = "best"
) -> dict[str, Any] | None:
    """Run or resume a grid, and write its table as `sweep.json`, `.txt` and `.png`.

    A run that stops because its loss diverges counts as a run without a score.

    Args:
        config: the configuration that all runs share; `output` is the folder of the sweep.
        grid: the values in which they differ.
        keep_models: "all" keeps models and checkpoints of all runs; "best" keeps the model of the
            best run, the seed with the best score of the setting with the best mean.

    Returns:
        The table (see `sweep_table.summary`), or None if the sweep was asked to stop; then a
        checkpoint of the current run has been saved.

    Raises:
        UserError: as `finetune`, or a sweep without validation examples.
    """
    check(config, grid)
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        session = Session.open(config, mesh)
        if not session.data.validation:
            raise UserError("a sweep compares validation scores; pass --validation")
        session.describe()
        folder = Path(config.output)
        with engine.only_writer(folder):
            return _sweep(session, grid.runs(config), folder, keep_models == "all")


def check(config: FinetuneConfig, grid: Grid) -> None:
    """Raise `UserError` for a grid without values, or a folder that holds something else."""
    if not any(dataclasses.astuple(grid)):
        raise UserError(
            "a sweep needs a grid, such as --grid.learning-rate 3e-5 8e-5; finetune does one run"
        )
    grid.runs(config)  # refuses wrong values before anything is read
    config.check_output()
    folder = Path(config.output)
    if (folder / "config.json").exists() or (folder / "export").exists():
        raise UserError(f"{folder}: holds a run, and not a sweep; choose another --output")


def _sweep(
    session: Session, runs: Sequence[Sequence[FinetuneConfig]], folder: Path, keep_all: bool
) -> dict[str, Any] | None:
    results: list[tuple[FinetuneConfig, Mapping[str, Any]]] = []
    total, table, progress = sum(map(len, runs)), {}, Progress(0)
    for of_setting in runs:
        for run in of_setting:
            progress.say(f"run {len(results) + 1:,}/{total:,}  {Path(run.output).name}")
            try:
                result = train(session, run)
            except engine.RunStopped as error:  # the other runs may still succeed
                progress.say(str(error))
                task = session.data.task
                result = {"task": task.kind, "metric": task.best_metric, "stopped": str(error)}
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
    """Remove the checkpoints of all runs, and the models of all but the run in folder `kept`."""
    together("finished")
    for run in runs if jax.process_index() == 0 else ():
        for name in ("checkpoints", "export"):
            if (run.output, name) != (kept, "export"):
                shutil.rmtree(Path(run.output) / name, ignore_errors=True)
