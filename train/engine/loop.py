"""The training loop: evaluate, save, read, step, log; from the last checkpoint if there is one."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.io.progress import Progress

from .checkpoint import Checkpoints
from .config import EngineConfig, TrainConfig
from .hyperparameters import Hyperparameters, decay_warning, relative_decay
from .metrics import Chronometer, Meter, MetricWriter
from .objective import Batch, Objective
from .profile import Profiler
from .program import Program
from .run_folder import RunFolder
from .state import TrainState
from .step import Metrics
from .stop import Stop
from .weights_and_biases import Board


class RunStopped(RuntimeError):
    """So many consecutive steps were skipped, or all, that the run has failed."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run with one objective and one schedule."""

    objective: Objective
    """The objective. It may differ from that of the program in its data, seed and steps."""
    program: Program
    hyper: Hyperparameters
    start: int
    """Step of the run at which it begins."""
    end: int
    """Step of the run at which it ends."""
    eval_every: int
    """Steps between evaluations; the end is evaluated as well, and alone with 0."""
    save_every: int
    """Steps between checkpoints; the end is saved as well."""
    record_start: bool = False
    """Whether the start is evaluated and saved too."""

    @classmethod
    def single(cls, objective: Objective, program: Program, config: TrainConfig) -> "Phase":
        """Build the phase of a run that has only one."""
        decay = config.weight_decay
        if config.optimizer == "stable_adamw":
            decay = relative_decay(decay, config.learning_rate)
        rise = round(config.warmup * objective.steps)
        hyper = Hyperparameters.create(config.learning_rate, decay, 0, rise, objective.steps)
        ends = objective.steps, objective.eval_every, config.save_every
        return cls(objective, program, hyper, 0, *ends)

    @property
    def decay_warning(self) -> str:
        """A line about a share of each weight that `stable_adamw` should not remove; or ""."""
        rate = float(self.hyper.learning_rate)
        return decay_warning(float(self.hyper.decay) * rate, rate)

    def evaluates(self, step: int) -> bool:
        """Whether the model is evaluated after a step."""
        return self._is_due(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is saved after a step."""
        return self._is_due(step, self.save_every)

    def _is_due(self, step: int, every: int) -> bool:
        if step == self.start:
            return self.record_start
        return step == self.end or (every > 0 and step % every == 0)


class Outcome(NamedTuple):
    """A run that has ended, or was stopped."""

    finished: bool
    state: TrainState
    fixed: Any
    """Parameters that were not trained."""
    rows: list[dict[str, Any]]
    """All rows of `metrics.jsonl`."""
    seconds: float
    """Time spent in steps, and waiting for their data."""
    keeps_best: bool
    """Whether the run asks for its best model."""

    @property
    def is_best(self) -> bool:
        """Whether `trained` is the best model's."""
        best = self.state.best
        return self.keeps_best and best is not None and int(best.step) >= 0

    @property
    def trained(self) -> Any:
        """The trained parameters of the best model where it is kept, else of the last."""
        best = self.state.best
        return best.params if best is not None and self.is_best else self.state.params

    @property
    def best_step(self) -> int | None:
        """Step of the evaluation with the best score; None where there is none."""
        scored = [row for row in self.rows if row.get("score") is not None]
        return max(scored, key=lambda row: row["score"])["step"] if scored else None


class _Pending(NamedTuple):
    """A step that may still be running, and what the host knows of it."""

    step: int
    metrics: Metrics
    counts: dict[str, Any]


def run(
    phases: Sequence[Phase],
    config: EngineConfig,
    folder: RunFolder,
    initial: Callable[[], Any],
    *,
    profile_steps: tuple[int, int] | None = None,
    message: str = "",
) -> Outcome:
    """Run or resume phases, one after another, in a folder that is claimed.

    Args:
        phases: parts of the run.
        config: settings of the run.
        folder: where it leaves everything.
        initial: gives the parameters to start from; None draws them. Called only where needed.
        profile_steps: first and last step that jax's profiler traces into `profile/`.
        message: shown when the run starts from the beginning.

    Raises:
        RunStopped: too many consecutive steps were skipped, or all of the run.
    """
    chronometer = Chronometer()
    is_first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        progress = stack.enter_context(Progress(phases[-1].end))
        ends = [phase.end for phase in phases] if len(phases) > 1 else []
        checkpoints = stack.enter_context(
            Checkpoints(folder.checkpoints, config.keep, config.keep_every, ends, say=progress.say)
        )
        program = phases[0].program
        with chronometer.during("start"):
            restored = checkpoints.restore(program.shapes()[0])
            if restored is None:
                (state, fixed), tokens = program.initial(initial(), config.seed), 0
            else:
                (state, saved), fixed = restored, program.fixed(initial)
                tokens = saved["tokens"]
                chronometer.add(saved.get("phases", {}))  # earlier versions have none
        boards = [Board(folder.path, config)] if config.wandb_project and is_first else []
        writer = MetricWriter(folder.path, int(state.step), boards, progress.say)
        stack.enter_context(writer)
        traced = profile_steps if is_first else None
        profiler = stack.enter_context(Profiler(folder.path / "profile", traced))
        if state.step:
            progress.say(f"{folder.path}: resuming at step {int(state.step):,}")
        elif message:
            progress.say(message)
        if config.optimizer == "stable_adamw":
            for line in dict.fromkeys(phase.decay_warning for phase in phases):
                if line:
                    progress.say(line)
        meter = Meter(tokens, chronometer)
        trainer = _Trainer(
            config, folder, fixed, stop, checkpoints, writer, progress, profiler, meter
        )
        finished = False
        for phase in phases:
            if int(state.step) < phase.end or phase is phases[-1]:
                state, finished = trainer.train(phase, state)
                if int(state.step) < phase.end:  # stopped, or out of patience
                    break
        seconds = chronometer.read()
        spent = seconds.get("step", 0.0) + seconds.get("data", 0.0)
        outcome = Outcome(finished, state, fixed, writer.rows, spent, config.keep_best)
        if finished:
            check_trained(folder, outcome)
        return outcome


def check_trained(folder: RunFolder, outcome: Outcome) -> None:
    """Raise `RunStopped` if every step was skipped, or the last ones for the parameters' sake."""
    steps, guard = int(outcome.state.step), outcome.state.guard
    if guard.in_a_row and not all(jnp.isfinite(x).all() for x in jax.tree.leaves(outcome.trained)):
        raise RunStopped(
            f"{folder.path}: the last {int(guard.in_a_row):,} steps were skipped, since parameters"
            " are not finite; start again in another --output with a lower learning rate"
        )
    if 0 < steps <= int(guard.skipped):
        raise RunStopped(
            f"{folder.path}: all {steps:,} steps were skipped, since no loss and gradient were"
            " finite; the model is as it began. Start again in another --output with other data"
            " or settings"
        )


@dataclasses.dataclass
class _Trainer:
    """The loop of a phase, with what it works with."""

    config: EngineConfig
    folder: RunFolder
    fixed: Any
    stop: Stop
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    profiler: Profiler
    meter: Meter

    def train(self, phase: Phase, state: TrainState) -> tuple[TrainState, bool]:
        """Train to the end of a phase, or until asked to stop; then the second value is False."""
        step = int(state.step)
        pending: _Pending | None = None
        self.meter.restart()
        with contextlib.closing(phase.objective.stream(step - phase.start)) as stream:
            while True:
                stopping, ends = self.stop.reached(step), step == phase.end
                evaluates, saves = phase.evaluates(step), phase.saves(step) or stopping
                if evaluates or saves:
                    self._settle(phase, pending)
                    pending = None
                    if evaluates:
                        state = self._evaluate(phase, step, state)
                        ends |= self._is_patience_over(phase.objective.name)
                    if saves or ends:
                        self._save(phase, step, state)
                    self.meter.restart()
                if ends or stopping:
                    return state, ends
                began = time.perf_counter()
                with self.meter.chronometer.during("data"):
                    batch = next(stream)
                waited = time.perf_counter() - began
                if not phase.program.is_compiled(batch):
                    self._settle(phase, pending)  # its time would pass for compilation
                    pending = None
                    self._compile(phase, state, batch)
                with self.profiler.step(step + 1):
                    state, metrics = phase.program.step(state, self.fixed, phase.hyper, batch)
                step += 1
                before = pending
                pending = _Pending(step, metrics, dict(batch.counts) | {"waited": waited})
                self._settle(phase, before)
                self.profiler.after(step, metrics)

    def _compile(self, phase: Phase, state: TrainState, batch: Batch) -> None:
        name = phase.objective.describe(batch)
        with self.meter.chronometer.during("compile"):
            phase.program.compile(name, state, self.fixed, phase.hyper, batch)
        self.meter.restart()

    def _settle(self, phase: Phase, pending: _Pending | None) -> None:
        """Wait for a step and write its row if it is due; the next step is running already."""
        if pending is None:
            return
        metrics = dict(jax.block_until_ready(pending.metrics))
        on_device = {name: metrics.pop(name).item() for name in ("tokens", "pairs")}
        self.meter.finished(pending.counts | on_device)
        if pending.step % self.config.log_every and pending.step != phase.end:
            return
        counts = self.meter.take()
        row = self._place(phase, pending.step, counts)
        row |= {name: x.item() for name, x in metrics.items()}
        row |= self.meter.read(phase.objective, counts)
        self.writer.write(row)
        numbers = f"loss {row['loss']:.4g}  lr {row['learning_rate']:.1e}"
        speed = f"{row['tokens_per_second']:,.0f} tokens/s"
        if "examples_per_second" in row:
            speed = f"{row['examples_per_second']:,.1f} examples/s"
        self.progress.update(row["stage"], row["step"], f"{numbers}  {speed}")
        if row["skipped_in_a_row"]:
            self._report_skipped(row)

    def _place(self, phase: Phase, step: int, counts: dict[str, Any]) -> dict[str, Any]:
        """The fields of every row that locate a step in the run."""
        more = phase.objective.row(step - phase.start, counts)
        place = {"step": step, "stage": phase.objective.name, "tokens": self.meter.tokens}
        return place | more

    def _report_skipped(self, row: dict[str, Any]) -> None:
        """Report skipped steps. Raises `RunStopped` at the limit of consecutive ones."""
        skipped, step = row["skipped_in_a_row"], row["step"]
        message = f"{skipped:,} steps skipped up to step {step:,}: loss is {row['loss']:.4g}"
        message += f", gradient norm {row['grad_norm']:.4g}"
        if skipped < self.config.skip_limit:
            self.progress.say(message)
            return
        # The loss after the last accepted step was bad: only earlier checkpoints are known as good.
        good = self.checkpoints.latest(before=step - skipped - 1)
        remedy = "it has no good checkpoint; start again with a lower learning rate"
        if good is not None:
            folder = self.folder.checkpoints / str(good)
            remedy = f"the last good checkpoint is {folder}; start from it with"
            remedy += f" {self.config.START_OPTION} {folder} in another --output, with another"
            remedy += " --seed or a lower learning rate"
        raise RunStopped(f"{self.folder.path}: {message}; {remedy}")

    def _save(self, phase: Phase, step: int, state: TrainState) -> None:
        with self.meter.chronometer.during("save"):
            progress = {"tokens": self.meter.tokens, "phases": self.meter.chronometer.read()}
            self.checkpoints.save(state, progress | phase.objective.metadata(step - phase.start))

    def _evaluate(self, phase: Phase, step: int, state: TrainState) -> TrainState:
        """Evaluate, unless that is on record; return the state, with this model if it is best."""
        known = ((row["step"], row.get("stage")) for row in self.writer.rows if "eval_loss" in row)
        if (step, phase.objective.name) in known:
            return state
        with self.meter.chronometer.during("evaluate"):
            params = phase.program.join(state.params, self.fixed)
            evaluation = phase.objective.evaluate(params, step - phase.start)
        if evaluation is None:
            return state
        score = np.float32(evaluation.score)
        row = self._place(phase, step, {}) | {"score": float(score)}
        self.writer.write(row | dict(evaluation.metrics))
        if evaluation.text:
            self.progress.say(f"{phase.objective.name}  step {step:,}  {evaluation.text}")
        if state.best is None or not score > np.asarray(state.best.score):  # NaN is not better
            return state
        return state._replace(best=state.best.replaced(state.params, step, float(score)))

    def _is_patience_over(self, name: str) -> bool:
        """Whether the score of the objective has not become better for too long."""
        top, since = -math.inf, 0
        rows = (row for row in self.writer.rows if "score" in row and row.get("stage") == name)
        for score in (row["score"] for row in rows):
            better = score is not None and score > top + self.config.min_delta
            top, since = (score, 0) if better else (top, since + 1)
        return 0 < self.config.patience <= since
