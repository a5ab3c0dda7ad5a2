"""Fine-tuning from start to end: the run and its files."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from modernbert_jax.convert import names
from modernbert_jax.errors import UserError

from .. import engine
from ..engine import peft
from ..engine.distributed import whole
from ..examples.run import finite, history, once, write_export
from ..tasks import Task
from . import card, run
from .config import FinetuneConfig
from .initial_model import InitialModel
from .session import Session


def finetune(
    config: FinetuneConfig, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Run or resume a fine-tuning run, and export the best model at its end.

    A recipe that starts from another run is for `modernbert_jax.train.intermediate.finetune`.

    Args:
        config: the run.
        profile_steps: first and last step that jax's profiler traces into `profile/`.

    Returns:
        The result ("best", "last", "test", ...), or None if the run was asked to stop; then a
        checkpoint has been saved.

    Raises:
        UserError: a configuration, data or folder that cannot be used.
        RunStopped: too many consecutive steps were skipped.
    """
    if config.intermediate.recipe:
        raise UserError(
            f"{config.output}: starts from the model of {config.intermediate.recipe}; run"
            " modernbert_jax.train.intermediate.finetune, which trains that first"
        )
    config.check_output()
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        session = Session.open(config, mesh)
        session.describe()
        return train(session, config, profile_steps)


def train(
    session: Session, config: FinetuneConfig, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Run or resume one run of a session, under its mesh; see `finetune`.

    `config` may differ from the session's in what `Session` names, and in its folder.
    """
    config = dataclasses.replace(config, task=session.data.task)
    folder = run.folder_of(config, session.inputs)
    return once(folder, lambda: _continue(session, config, folder, profile_steps))


def _continue(
    session: Session,
    config: FinetuneConfig,
    folder: engine.RunFolder,
    profile_steps: tuple[int, int] | None,
) -> dict[str, Any] | None:
    """Begin or resume a run whose folder is held."""
    start = session.start(config.seed)
    folder.claim(start.tokenizer)
    objective = session.run_objective(config)
    outcome = engine.run(
        [engine.Phase.single(objective, session.program, config)],
        config,
        folder,
        lambda: start.params,
        profile_steps=profile_steps,
        message=f"new parameters: {', '.join(start.new)}" if start.new else "",
    )
    if not outcome.finished:
        return None
    return Ending(config, session, folder, start, outcome).write()


@dataclasses.dataclass
class Ending:
    """Files of a finished run: its result, predictions, and the exported model."""

    config: FinetuneConfig
    session: Session
    folder: engine.RunFolder
    start: InitialModel
    outcome: engine.Outcome

    def write(self) -> dict[str, Any]:
        """Evaluate the exported model once more, and write everything. Return the result."""
        data, predict, program = self.session.data, self.session.predict, self.session.program
        task, trained = data.task, self.outcome.trained
        params = program.join(trained, self.outcome.fixed)
        result: dict[str, Any] = {"task": task.kind, "metric": task.best_metric}
        result |= history(self.outcome)
        if data.validation:
            predictions = predict(params, data.validation, keep=True)
            task = task.tuned(data.validation, predictions.outputs)
            if task != data.task:
                metrics = task.metrics(data.validation, predictions.outputs)
                result["tuned"] = {"metrics": finite(metrics)}
            rows = task.predictions(data.validation, predictions.outputs)
            run.write_predictions(self.folder, "validation", rows)
        if data.test:
            predictions = predict(params, data.test)
            metrics = task.metrics(data.test, predictions.outputs)
            result["test"] = {"metrics": finite({"loss": predictions.loss, **metrics})}
            rows = task.predictions(data.test, predictions.outputs)
            run.write_predictions(self.folder, "test", rows)
        del params
        seconds = self.outcome.seconds
        examples = self.session.batches(self.config.seed).examples_before(self._step)
        result["exported"] = "best" if self.outcome.is_best else "last"
        result["new_parameters"] = list(self.start.new)
        result |= {"examples": len(data.train), "seconds": round(seconds, 3)}
        result["examples_per_second"] = round(examples / max(seconds, 1e-9), 3)
        self._export(task, trained, result)
        return result

    @property
    def _step(self) -> int:
        return int(self.outcome.state.step)

    def _export(self, task: Task, trained: Any, result: Mapping[str, Any]) -> None:
        """Write the model with its labels, its card and its task, and then the result."""
        session, program = self.session, self.session.program
        model, adapters = session.model, program.learner.partition.adapters
        if adapters is not None:
            rows = names.table(model, task.head, task.outputs)
            gathered = whole(trained, session.mesh)
            path = self.folder.path / "adapter"
            peft.export(path, adapters, gathered, rows, task.head, self.config.model)
        text = card.text(self.config, task, session.data, result)
        params = program.whole(trained, self.outcome.fixed)
        exported = run.exported(model, params, task, self.start.files, self.start.extra, text)
        write_export(self.folder, exported, "hf", result)
