"""The training loop: evaluate, save, read, step, log; from the last checkpoint if there is one."""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax.io.progress import Progress, phase
from modernbert_jax.io.typed_json import to_json
from modernbert_jax.sharding import rows_sharding

from ..engine.checkpoint import Checkpoints
from ..engine.metrics import Chronometer, Meter, MetricWriter
from ..engine.profile import Profiler
from ..engine.stop import Stop
from ..engine.weights_and_biases import Board
from ..rows.batches import Batches, Host, place
from .batch_size import Segment, microbatches
from .config import PretrainConfig, Stage
from .run import Run, use_compile_cache
from .step import MaskRule, StepMetrics, TrainState, eval_step, init_state, state_shapes, train_step


class RunStopped(RuntimeError):
    """The guard skipped so many updates on end that going on makes no sense."""


class Unlogged(NamedTuple):
    """A step that may still be running, and what the host knows of it."""

    row: dict[str, Any]
    metrics: StepMetrics
    position: int
    """In the data, behind it."""


def pretrain(config: PretrainConfig, profile_steps: tuple[int, int] | None = None) -> bool:
    """Runs or resumes a pretraining run, and exports the model at its end.

    Args:
        config: what to run.
        profile_steps: first and last step that jax's profiler traces into `profile/`.

    Returns False if it was asked to stop before; then a checkpoint has been saved. Raises
    `UserError` for a configuration, data or folder that cannot be used, and `RunStopped` where the
    loss cannot be saved.
    """
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        return _pretrain(config, mesh, profile_steps)


def _pretrain(config: PretrainConfig, mesh: Mesh, profile_steps: tuple[int, int] | None) -> bool:
    use_compile_cache()
    chronometer = Chronometer()
    run = Run.open(config, mesh)
    config = run.config
    if run.finished:
        return True
    params = None if run.started else run.initial_params()  # before anything is written
    run.claim()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        progress = stack.enter_context(Progress(config.starts[-1]))
        keep = (config.keep, config.keep_every, config.starts[1:])
        checkpoints = stack.enter_context(
            Checkpoints(run.folder / "checkpoints", *keep, say=progress.say)
        )
        with chronometer.during("start"):
            if (restored := checkpoints.restore(state_shapes(config, mesh))) is None:
                state, tokens = init_state(config, params or run.initial_params()), 0
            else:
                state, saved = restored
                tokens = saved["tokens"]
                chronometer.add(saved["seconds"])
        shared = config.wandb_project and jax.process_index() == 0
        boards = [Board(run.folder, config)] if shared else []
        writer = stack.enter_context(MetricWriter(run.folder, int(state.step), boards))
        traced = profile_steps if jax.process_index() == 0 else None
        profiler = stack.enter_context(Profiler(run.folder / "profile", traced))
        if state.step:
            progress.say(f"{run.folder}: resuming at step {int(state.step):,}")
        trainer = Trainer(run, stop, checkpoints, writer, progress, profiler, chronometer)
        for stage, start, end in zip(config.stages, config.starts, config.starts[1:], strict=False):
            if int(state.step) < end or end == config.starts[-1]:
                state, tokens = trainer.train_stage(stage, start, end, state, tokens)
            if stop.asked:
                return False
        checkpoints.finish()
        run.export(state.params)
    return True


@dataclasses.dataclass
class Trainer:
    """The loop over one stage after another, with what it works with."""

    run: Run
    stop: Stop
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    profiler: Profiler
    chronometer: Chronometer

    def train_stage(
        self, stage: Stage, start: int, end: int, state: TrainState, tokens: int
    ) -> tuple[TrainState, int]:
        """Trains from where `state` stands to step `end`, or until asked to stop.

        `tokens` counts those that the run has seen, before and after.
        """
        config, step = self.run.config, int(state.step)
        mask = MaskRule.of(self.run.data.tokenizer)
        evaluate = self._evaluator(stage, mask)
        meter = Meter(config.stage_model(stage), stage.mask_rate, tokens, self.chronometer)
        eval_every = stage.eval_every or config.eval_every
        save_every = stage.save_every or config.save_every
        segment = stage.batches.at(step - start)
        batches, step_fn = self._segment(stage, start, segment, step, state, mask)
        metrics: StepMetrics | None = None
        unlogged: Unlogged | None = None
        while True:
            at_edge, stopping = step in (start, end), self.stop.reached(step)
            evaluates = at_edge or step % eval_every == 0
            saves = at_edge or step % save_every == 0 or stopping
            goes_on = step < end and not stopping
            grows = goes_on and stage.batches.at(step - start) != segment
            if evaluates or saves or grows:
                meter.finished(metrics)
                unlogged = self._log(unlogged, meter, batches)
                if evaluates:
                    with self.chronometer.during("evaluate"):
                        evaluate(step, state.params)
                if saves:
                    with self.chronometer.during("save"):
                        self._save(stage, state, meter.tokens, batches.position)
                if grows:
                    batches.close()
                    segment = stage.batches.at(step - start)
                    batches, step_fn = self._segment(stage, start, segment, step, state, mask)
                metrics = None
                meter.restart()
            if not goes_on:
                batches.close()
                return state, meter.tokens
            rows = meter.next(batches)
            before = metrics
            with self.profiler.step(step + 1):
                state, metrics = step_fn(state, rows)
            step += 1
            meter.finished(before)
            self.profiler.after(step, metrics)
            unlogged = self._log(unlogged, meter, batches)
            if step % config.log_every == 0 or step == end:
                row = {"step": step, "stage": stage.name, "batch_rows": segment.rows}
                unlogged = Unlogged(row, metrics, batches.position)

    def _segment(
        self, stage: Stage, start: int, segment: Segment, step: int, state: TrainState, mask
    ):
        """The batches of one size from step `step` on, and the step compiled for them."""
        config, count = self.run.config, microbatches(segment.rows, stage.microbatch_rows)
        seed = stage.shuffle_seed
        if seed is None:
            seed = config.seed + config.stages.index(stage)
        read = stage.batches.rows_before(step - start)
        batches = self.run.batches(stage, segment.rows, seed, read)
        count = microbatches(segment.rows, stage.microbatch_rows)
        step_fn = train_step(config, stage, start, mask, count)
        if step - start < stage.steps:
            name = f"compiling {stage.name}, batches of {segment.rows:,}"
            with phase(name), self.chronometer.during("compile"):
                step_fn = step_fn.lower(state, batches.shape).compile()
        return batches, step_fn

    def _save(self, stage: Stage, state: TrainState, tokens: int, position: int) -> None:
        config = self.run.config
        progress = {"tokens": tokens, "rows": position, "seconds": self.chronometer.read()}
        progress |= {"config": to_json(config), "model": self.run.model(stage).to_hf()}
        self.checkpoints.save(state, progress)

    def _log(self, unlogged: Unlogged | None, meter: Meter, batches: Batches) -> None:
        """Writes a step's metrics. The next step is running already, so that nothing waits."""
        if unlogged is None:
            return
        counts = meter.take()
        row = unlogged.row | {k: x.item() for k, x in unlogged.metrics._asdict().items()}
        row |= {"tokens": meter.tokens} | batches.contents(counts.components, unlogged.position)
        row |= meter.read(counts)
        del row["pairs"]
        self.writer.write(row)
        numbers = f"loss {row['loss']:.3f}  lr {row['learning_rate']:.1e}"
        speed = f"{row['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(row["stage"], row["step"], f"{numbers}  {speed}")
        if row["skipped_in_a_row"]:
            self._complain(row)

    def _complain(self, row: dict[str, Any]) -> None:
        """Says that updates are being skipped; raises `RunStopped` if it is time to give up."""
        skipped, step = row["skipped_in_a_row"], row["step"]
        said = f"{skipped:,} updates skipped up to step {step:,}: loss is {row['loss']:.4g}"
        said += f", gradient norm {row['grad_norm']:.4g}"
        if skipped < self.run.config.skip_limit:
            self.progress.say(said)
            return
        # The loss that the last update led to was bad: only those before are known to be good.
        good = self.checkpoints.latest(before=step - skipped - 1)
        remedy = "it has no good checkpoint; start again with a lower learning rate"
        if good is not None:
            folder = self.run.folder / "checkpoints" / str(good)
            remedy = (
                f"the last good checkpoint is {folder}; start from it with --init-from {folder}"
            )
            remedy += " in another --output, with another --seed or a lower learning rate"
        raise RunStopped(f"{self.run.folder}: {said}; {remedy}")

    def _evaluator(self, stage: Stage, mask: MaskRule):
        """A function that evaluates parameters at a step, if that is not on record already."""
        config = self.run.config
        size = stage.rows // microbatches(stage.rows, stage.microbatch_rows)
        validation = {
            name: self.run.data.validation(stage.length, size, config.eval_rows, name)
            for name in self.run.order(stage).names
        }
        sharding = rows_sharding(jax.sharding.get_mesh())
        put = functools.partial(place, size=size, host=Host(0, 1), sharding=sharding)
        batches = [(name, put(rows)) for name, of_it in validation.items() for rows in of_it]
        step_fn = eval_step(config, stage, mask)

        def evaluate(step: int, params: Any) -> None:
            known = ((r["step"], r["stage"]) for r in self.writer.rows if "eval_loss" in r)
            if not batches or (step, stage.name) in known:
                return
            sums = {name: np.zeros(3) for name, _ in batches}
            for i, (name, rows) in enumerate(batches):
                sums[name] += [float(x) for x in step_fn(params, rows, i)]
            loss, count, correct = sum(sums.values())
            row = {"step": step, "stage": stage.name, "eval_loss": loss / max(count, 1)}
            row["eval_masked_accuracy"] = correct / max(count, 1)
            if len(sums) > 1:
                row |= {f"eval_loss/{name}": s[0] / max(s[1], 1) for name, s in sums.items()}
            self.writer.write(row)

        return evaluate
