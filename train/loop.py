"""The training loop: evaluate, save, read, step, log; from the last checkpoint if there is one."""

import contextlib
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from .checkpoint import Checkpoints
from .config import PretrainConfig, Stage, to_json
from .metrics import Counts, Meter, MetricWriter
from .progress import Progress, phase
from .run import Run, use_compile_cache
from .step import MaskRule, StepMetrics, TrainState, eval_step, init_state, train_step
from .stop import Stop


class Unlogged(NamedTuple):
    """A step that may still be running, and what the host knows of it."""

    row: dict[str, Any]
    metrics: StepMetrics
    counts: Counts


def pretrain(config: PretrainConfig) -> bool:
    """Runs or resumes a pretraining run, and exports the model at its end.

    Returns False if it was asked to stop before; then a checkpoint has been saved. Raises
    `UserError` for a configuration, data or folder that cannot be used.
    """
    use_compile_cache()
    run = Run.open(config)
    config = run.config
    if run.finished:
        return True
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        checkpoints = stack.enter_context(Checkpoints(run.folder / "checkpoints", config.keep))
        if checkpoints.latest() is None:
            state, tokens = init_state(config, run.initial_params()), 0
        else:
            state, saved = checkpoints.restore(jax.eval_shape(lambda: init_state(config)))
            tokens = saved["tokens"]
        writer = stack.enter_context(MetricWriter(run.folder, int(state.step)))
        progress = stack.enter_context(Progress(config.starts[-1]))
        if state.step:
            progress.say(f"{run.folder}: resuming at step {int(state.step):,}")
        trainer = Trainer(run, stop, checkpoints, writer, progress)
        for stage, start, end in zip(config.stages, config.starts, config.starts[1:], strict=False):
            if int(state.step) < end or end == config.starts[-1]:
                state, tokens = trainer.train_stage(stage, start, end, state, tokens)
            if stop.asked:
                return False
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

    def train_stage(
        self, stage: Stage, start: int, end: int, state: TrainState, tokens: int
    ) -> tuple[TrainState, int]:
        """Trains from where `state` stands to step `end`, or until asked to stop.

        `tokens` counts those that the run has seen, before and after.
        """
        config, step = self.run.config, int(state.step)
        seed, read = config.seed + config.stages.index(stage), (step - start) * stage.rows
        batches = self.run.batches(stage, seed, read)
        mask = MaskRule.of(self.run.data.tokenizer)
        step_fn = train_step(config, stage, start, mask)
        if step < end:
            with phase(f"compiling {stage.name}"):
                step_fn = step_fn.lower(state, batches.shape()).compile()
        evaluate = self._evaluator(stage, mask)
        meter = Meter(config.stage_model(stage), stage.mask_rate, tokens)
        unlogged: Unlogged | None = None
        while True:
            at_edge, stopping = step in (start, end), self.stop.asked
            evaluates = at_edge or step % config.eval_every == 0
            saves = at_edge or step % config.save_every == 0 or stopping
            if evaluates or saves:
                unlogged = self._log(unlogged, meter)
                if evaluates:
                    evaluate(step, state.params)
                if saves:
                    position = {"tokens": meter.tokens, "rows": batches.position}
                    self.checkpoints.save(state, {**position, "config": to_json(config)})
                meter.restart()
            if step == end or stopping:
                batches.close()
                return state, meter.tokens
            rows = meter.next(batches)
            state, metrics = step_fn(state, rows)
            step += 1
            unlogged = self._log(unlogged, meter)
            if step % config.log_every == 0 or step == end:
                counts = meter.take()
                row = {"step": step, "stage": stage.name, "tokens": meter.tokens}
                unlogged = Unlogged(row | batches.contents(counts.components), metrics, counts)

    def _log(self, unlogged: Unlogged | None, meter: Meter) -> None:
        """Writes a step's metrics. The next step is running already, so that nothing waits."""
        if unlogged is None:
            return
        row = unlogged.row | {k: float(x) for k, x in unlogged.metrics._asdict().items()}
        row |= meter.read(unlogged.counts)
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(f"loss is {row['loss']} at step {row['step']}")
        self.writer.write(row)
        numbers = f"loss {row['loss']:.3f}  lr {row['learning_rate']:.1e}"
        speed = f"{row['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(row["stage"], row["step"], f"{numbers}  {speed}")

    def _evaluator(self, stage: Stage, mask: MaskRule):
        """A function that evaluates parameters at a step, if that is not on record already."""
        config = self.run.config
        validation = {
            name: self.run.data.validation(stage.length, stage.rows, config.eval_rows, name)
            for name in self.run.order(stage).names
        }
        batches = [(name, rows) for name, of_it in validation.items() for rows in of_it]
        step_fn = eval_step(config, stage, mask)
        key = jax.random.key(config.seed)

        def evaluate(step: int, params: Any) -> None:
            known = ((r["step"], r["stage"]) for r in self.writer.rows if "eval_loss" in r)
            if not batches or (step, stage.name) in known:
                return
            sums = {name: np.zeros(3) for name, _ in batches}
            for i, (name, rows) in enumerate(batches):
                sums[name] += [float(x) for x in step_fn(params, rows, jax.random.fold_in(key, i))]
            loss, count, correct = sum(sums.values())
            row = {"step": step, "stage": stage.name, "eval_loss": loss / max(count, 1)}
            row["eval_masked_accuracy"] = correct / max(count, 1)
            if len(sums) > 1:
                row |= {f"eval_loss/{name}": s[0] / max(s[1], 1) for name, s in sums.items()}
            self.writer.write(row)

        return evaluate
