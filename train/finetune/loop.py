"""The loop of fine-tuning: evaluate, keep the best, save, step, log; and what it leaves."""

import contextlib
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.io.progress import Progress

from ..engine.checkpoint import Checkpoints
from ..engine.hyperparameters import Hyper
from ..engine.metrics import MetricWriter
from ..engine.stop import Stop
from ..engine.weights_and_biases import Board
from ..pretrain.loop import RunStopped
from ..pretrain.run import use_compile_cache
from . import intermediate
from .batches import TrainingBatches
from .config import FinetuneConfig
from .ending import Ending
from .meter import Meter, Pending
from .run import Run
from .session import Session
from .step import Best, State


def finetune(config: FinetuneConfig) -> dict[str, Any] | None:
    """Runs or resumes a fine-tuning run, and exports the best model at its end.

    Returns what it has found ("best", "last", "test", ...), or None if it was asked to stop before;
    then a checkpoint has been saved. Raises `UserError` for a configuration, data or folder that
    cannot be used, and `RunStopped` where the loss cannot be saved.
    """
    config = intermediate.prepared(config, finetune)
    if config is None:
        return None
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        use_compile_cache()
        return train(Session.open(config, mesh), config)


def train(session: Session, config: FinetuneConfig) -> dict[str, Any] | None:
    """One run of a session, under its mesh; see `finetune`.

    `config` may differ from the session's in what `Session` names, and in its folder.
    """
    run = Run.of(config, session.data.task)
    if (result := run.result()) is not None:
        return result
    start = session.start(config.seed)
    run.claim(start)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        batches = session.batches(config.seed)
        progress = stack.enter_context(Progress(batches.updates(config.epochs)))
        folder = run.folder / "checkpoints"
        checkpoints = stack.enter_context(Checkpoints(folder, config.keep, say=progress.say))
        state, fixed = session.initial(start.params, config.seed)
        meter = Meter()
        restored = checkpoints.restore(session.shapes(start.params)[0])
        if restored is not None:
            state, saved = restored
            meter = Meter(saved["tokens"], saved["seconds"])
        shared = config.wandb_project and jax.process_index() == 0
        boards = [Board(run.folder, config)] if shared else []
        writer = stack.enter_context(MetricWriter(run.folder, int(state.step), boards))
        if state.step:
            progress.say(f"{run.folder}: resuming at update {int(state.step):,}")
        elif start.new:
            progress.say(f"new parameters: {', '.join(start.new)}")
        trainer = Trainer(session, config, stop, checkpoints, writer, progress, batches, meter)
        state, finished = trainer.train(state, fixed, run.metadata(session, start))
        if not finished:
            return None
        seen = batches.examples_before(int(state.step))
        return Ending(run, session, writer.rows).write(state, fixed, start, seen, meter.seconds)


@dataclasses.dataclass
class Trainer:
    """The loop, with what it works with."""

    session: Session
    config: FinetuneConfig
    stop: Stop
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    batches: TrainingBatches
    meter: Meter

    def train(self, state: State, fixed: Any, metadata: dict[str, Any]) -> tuple[State, bool]:
        """Trains to the end, or until asked to stop; then the second value is False."""
        config, step = self.config, int(state.step)
        updates = self.batches.updates(config.epochs)
        hyper = Hyper(*map(np.float32, _numbers(config, updates)))
        evaluations = self._evaluations(updates)
        pending: Pending | None = None
        while True:
            stopping, evaluates = self.stop.reached(step), step in evaluations
            saves = stopping or step == updates or (step and step % config.save_every == 0)
            ends = step == updates
            if evaluates or saves:
                self._settle(pending, updates)
                pending = None
                with self.meter.paused():
                    if evaluates:
                        state = self._evaluate(step, state, fixed)
                        ends |= self._is_patience_over()
                    if saves or ends:
                        self.checkpoints.save(state, metadata | self.meter.state())
            if ends or stopping:
                return state, ends
            batch, examples = self.batches.at(step)
            tokens = int((batch.rows.segment_ids > 0).sum())
            capacity = int(batch.used) * self.session.shape.tokens
            compiles = not self.session.compiled
            with self.meter.paused() if compiles else contextlib.nullcontext():
                state, metrics = self.session.step(state, fixed, hyper, batch)
            step += 1
            before, pending = pending, Pending(step, metrics, examples, tokens, capacity)
            self._settle(before, updates)

    def _settle(self, pending: Pending | None, updates: int) -> None:
        """Waits for an update and writes its row if it is time; the next one runs already."""
        if pending is None:
            return
        jax.block_until_ready(pending.metrics)
        step = pending.step
        self.meter.count(pending)
        if step % self.config.log_every and step != updates:
            return
        row = self._where(step)
        row |= {name: x.item() for name, x in pending.metrics._asdict().items()} | self.meter.read()
        self.writer.write(row)
        numbers = f"loss {row['loss']:.4f}  lr {row['learning_rate']:.1e}"
        speed = f"{row['examples_per_second']:,.1f} examples/s"
        self.progress.update(row["stage"], step, f"{numbers}  {speed}")
        if row["skipped_in_a_row"]:
            self._complain(row)

    def _where(self, step: int) -> dict[str, Any]:
        """How far the run is, in four measures."""
        epoch, kind = step / self.batches.per_epoch, self.session.data.task.kind
        return {"step": step, "stage": kind, "epoch": epoch, "tokens": self.meter.tokens}

    def _complain(self, row: dict[str, Any]) -> None:
        """Says that updates are being skipped; raises `RunStopped` if it is time to give up."""
        said = f"{row['skipped_in_a_row']:,} updates skipped up to update {row['step']:,}: loss is"
        said += f" {row['loss']:.4g}, gradient norm {row['grad_norm']:.4g}"
        if row["skipped_in_a_row"] < self.config.skip_limit:
            self.progress.say(said)
            return
        raise RunStopped(
            f"{self.config.output}: {said}; start again in another --output with a lower"
            " --learning-rate"
        )

    def _evaluations(self, updates: int) -> set[int]:
        """Updates behind which to evaluate."""
        if not self.session.data.validation:
            return set()
        every = max(1, round(self.config.eval_every * self.batches.per_epoch))
        return {*range(every, updates, every), updates}

    def _evaluate(self, step: int, state: State, fixed: Any) -> State:
        """The state, with this model if it is the best; nothing is measured twice."""
        if any(row["step"] == step and "eval_loss" in row for row in self.writer.rows):
            return state
        task, examples = self.session.data.task, self.session.data.validation
        said = self.session.predict(state.params, fixed, examples, keep=True)
        metrics = task.metrics(examples, said.outputs)
        score = np.float32(metrics[task.best_metric])
        row = self._where(step) | {"score": float(score), "eval_loss": said.loss}
        self.writer.write(row | {f"eval_{name}": value for name, value in metrics.items()})
        self.progress.say(
            f"{task.kind}  update {step:,}  validation loss {said.loss:.4f}"
            f"  {task.best_metric} {score:.4f}"
        )
        if not score > np.asarray(state.best.score):  # NaN is not better
            return state
        keeps = self.session.config.keep_best
        params = jax.tree.map(jnp.copy, state.params) if keeps else {}
        return state._replace(best=_best(state.best, params, step, score))

    def _is_patience_over(self) -> bool:
        """Whether the score has not become better for too long."""
        top, since = -math.inf, 0
        for score in (row["score"] for row in self.writer.rows if "score" in row):
            better = score is not None and score > top + self.config.min_delta
            top, since = (score, 0) if better else (top, since + 1)
        return 0 < self.config.patience <= since


def _numbers(config: FinetuneConfig, updates: int) -> tuple[float, ...]:
    rise = round(config.warmup * updates)
    return config.learning_rate, config.weight_decay, rise, updates


def _best(before: Best, params: Any, step: int, score: np.floating) -> Best:
    """A new best, its scalars where those before lay."""
    numbers = np.int32(step), np.float32(score)
    places = before.step.sharding, before.score.sharding
    return Best(params, *map(jax.device_put, numbers, places))
