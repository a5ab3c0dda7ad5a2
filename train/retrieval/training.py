"""Retrieval training from start to end: the run and its files."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import engine
from ..engine import peft
from ..engine.distributed import whole
from ..examples.card import NAME
from ..examples.run import history, once, write_export
from . import card
from .config import RetrievalConfig, from_json, to_json
from .objective import SCALE, of_model
from .session import Session


def train(
    config: RetrievalConfig, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Run or resume a run, and export the best model at its end.

    Args:
        config: the run.
        profile_steps: first and last step that jax's profiler traces into `profile/`.

    Returns:
        The result, or None if the run was asked to stop; then a checkpoint has been saved.

    Raises:
        UserError: a configuration, data or folder that cannot be used.
        RunStopped: too many consecutive steps were skipped.
    """
    config.check_output()
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        session = Session.open(config, mesh)
        session.describe()
        folder = folder_of(config, session)
        return once(folder, lambda: _continue(session, folder, profile_steps))


def folder_of(config: RetrievalConfig, session: Session) -> engine.RunFolder:
    """The folder of a run whose inputs are known."""
    return engine.RunFolder(
        Path(config.output),
        to_json(config),
        config.FREE,
        lambda before: to_json(from_json(before)),
        session.inputs,
    )


def _continue(
    session: Session, folder: engine.RunFolder, profile_steps: tuple[int, int] | None
) -> dict[str, Any] | None:
    """Begin or resume a run whose folder is held."""
    config, start = session.config, session.trainee.begin()
    folder.claim(start.tokenizer)
    program = session.program()
    objective = session.objective(start, folder.path)
    outcome = engine.run(
        [engine.Phase.single(objective, program, config)],
        config,
        folder,
        lambda: objective.with_scale(start.params),
        profile_steps=profile_steps,
        message=f"new parameters: {', '.join(start.new)}" if start.new else "",
    )
    if not outcome.finished:
        return None
    result = _result(session, outcome) | {"new_parameters": list(start.new)}
    adapters = program.learner.partition.adapters
    if adapters is not None:
        gathered = whole(outcome.trained, session.mesh)
        path, rows = folder.path / "adapter", session.trainee.rows
        peft.export(path, adapters, gathered, rows, session.trainee.head, config.model)
    params = program.whole(outcome.trained, outcome.fixed)
    if SCALE in params:
        result["scale"] = float(np.exp(params[SCALE]))
    exported = start.exported(of_model(params))
    text = card.text(session, exported, result)
    exported = dataclasses.replace(exported, files={**exported.files, NAME: text.encode()})
    write_export(folder, exported, session.trainee.FORMAT, result)
    return result


def _result(session: Session, outcome: engine.Outcome) -> dict[str, Any]:
    """The metrics of the run, and its speed."""
    config, seconds, steps = session.config, outcome.seconds, int(outcome.state.step)
    examples = sum(len(session.sampler.members(step).examples) for step in range(steps))
    evaluations = history(outcome)
    for evaluation in evaluations.values():  # there is no loss without validation examples
        measured = {k: x for k, x in evaluation["metrics"].items() if x is not None}
        evaluation["metrics"] = measured
    return {
        "task": config.kind,
        "loss": config.loss.name,
        **({"losses": {k: x.name for k, x in config.losses.items()}} if config.losses else {}),
        "metric": session.metric,
        **evaluations,
        "exported": "best" if outcome.is_best else "last",
        "examples": sum(map(len, session.train)),
        "seconds": round(seconds, 3),
        "examples_per_second": round(examples / max(seconds, 1e-9), 3),
    }
