"""The training loop: evaluate, save, read, step, log; from the last checkpoint if there is one."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.files import read_json, write_json
from modernbert_jax.packing import Rows

from .checkpoint import Checkpoints
from .config import PretrainConfig, Stage, differences, to_json
from .data import Prepared
from .metrics import MetricWriter, peak_flops
from .progress import Progress
from .step import MaskRule, StepMetrics, TrainState, eval_step, init_state, train_step
from .stop import Stop

_FREE = ("output", "keep", "log_every", "save_every")
"""Keys that may change between a run and its resumption: they leave its results alone."""


@dataclasses.dataclass
class Pending:
    """A step whose metrics are still being computed, and what the host knows of it."""

    row: dict[str, Any]
    metrics: StepMetrics


class Run:
    """A pretraining run in its folder. `train()` is what there is to call."""

    def __init__(self, config: PretrainConfig):
        """Checks everything that can be checked before anything is written.

        Raises:
            UserError: unfit data, or a folder that holds a run with another configuration.
        """
        self.config = config
        self.folder = Path(config.output)
        self.data = Prepared(config.data)
        self.mask = MaskRule.of(self.data.tokenizer)
        _check_vocabulary(config, self.data)
        for stage in config.stages:
            self.data.rows("train", stage.length)
        self._claim_folder()

    @property
    def export_folder(self) -> Path:
        """Where the finished model lies, as a Hugging Face directory."""
        return self.folder / "export"

    def train(self) -> bool:
        """Trains to the end and exports, or until asked to stop. Returns whether it is finished."""
        if self.export_folder.exists():
            return True
        config, starts = self.config, self.config.starts
        with (
            Stop() as stop,
            Checkpoints(self.folder / "checkpoints", config.keep) as self.checkpoints,
            Progress(starts[-1]) as self.progress,
        ):
            state, done = self._first_state()
            self.writer = MetricWriter(self.folder, int(state.step))
            try:
                for stage, start, end in zip(config.stages, starts, starts[1:], strict=False):
                    if int(state.step) < end or end == starts[-1]:
                        state, done = self._train_stage(stage, start, end, state, done, stop)
                    if stop.asked:
                        return False
            finally:
                self.writer.close()
            self._export(state)
        return True

    def _train_stage(
        self, stage: Stage, start: int, end: int, state: TrainState, done: dict, stop: Stop
    ) -> tuple[TrainState, dict]:
        """The steps from where `state` stands to the stage's end; `done` counts what was seen."""
        step_fn = train_step(self.config, stage, start, self.mask)
        evaluate = self._evaluator(stage)
        step, pending, waited = int(state.step), None, 0.0
        done = {**done, "rows": (step - start) * stage.rows}
        batches = self.data.batches(
            "train", stage.length, stage.rows, self._seed(stage), done["rows"]
        )
        began, since = time.perf_counter(), 0
        while True:
            if step in (start, end) or step % self.config.eval_every == 0:
                pending = self._log(pending)
                evaluate(step, state.params)
            if step in (start, end) or step % self.config.save_every == 0 or stop.asked:
                pending = self._log(pending)
                self.checkpoints.save(state, {**done, "config": to_json(self.config)})
            if step == end or stop.asked:
                return state, done
            waiting = time.perf_counter()
            rows = next(batches)
            waited += time.perf_counter() - waiting
            real = int(np.count_nonzero(rows.segment_ids))
            state, metrics = step_fn(state, rows)
            step += 1
            done = {"tokens": done["tokens"] + real, "rows": batches.position}
            pending = self._log(pending)
            since += real
            if step % self.config.log_every == 0 or step == end:
                row = {"step": step, "stage": stage.name, "tokens": done["tokens"]}
                row |= {"packing_efficiency": real / rows.segment_ids.size}
                row |= {"data_wait_seconds": waited, "seconds": began, "since": since}
                pending = Pending(row, metrics)
                began, since, waited = time.perf_counter(), 0, 0.0

    def _log(self, pending: Pending | None) -> None:
        """Writes the metrics of an earlier step; by now they have been computed."""
        if pending is None:
            return
        row = pending.row
        values = {name: float(x) for name, x in pending.metrics._asdict().items()}
        if not np.isfinite(values["loss"]):
            raise FloatingPointError(f"loss is {values['loss']} at step {row['step']}")
        speed = row.pop("since") / (time.perf_counter() - row.pop("seconds"))
        peak = peak_flops()
        per_token = 3 * self.config.model.flops_per_token(1024, 0.3)
        row |= values | {"tokens_per_second": speed, "mfu": peak and speed * per_token / peak}
        self.writer.write(row)
        self.progress.update(
            row["stage"],
            row["step"],
            f"loss {row['loss']:.3f}  lr {row['learning_rate']:.1e}  {speed:,.0f} tokens/s",
        )

    def _evaluator(self, stage: Stage):
        """A function that evaluates parameters at a step, unless that was done before a restart."""
        rows = self._validation(stage)
        step_fn = eval_step(self.config, stage, self.mask)
        key = jax.random.key(self.config.seed)

        def evaluate(step: int, params: Any) -> None:
            known = {(r["step"], r["stage"]) for r in self.writer.rows if "eval_loss" in r}
            if not rows or (step, stage.name) in known:
                return
            sums = [step_fn(params, r, jax.random.fold_in(key, i)) for i, r in enumerate(rows)]
            loss, count, correct = (float(sum(map(float, x))) for x in zip(*sums, strict=True))
            row = {"step": step, "stage": stage.name, "eval_loss": loss / max(count, 1)}
            self.writer.write({**row, "eval_masked_accuracy": correct / max(count, 1)})

        return evaluate

    def _validation(self, stage: Stage) -> list[Rows]:
        """The validation rows in batches of the stage's size, the last filled with padding."""
        try:
            dataset = self.data.rows("validation", stage.length)
        except UserError:
            return []
        rows = [Rows(**dataset[i]) for i in range(min(len(dataset), self.config.eval_rows))]
        empty = Rows(*(np.zeros_like(field) for field in rows[0]))
        rows += [empty] * (-len(rows) % stage.rows)
        groups = [rows[i : i + stage.rows] for i in range(0, len(rows), stage.rows)]
        return [Rows(*map(np.stack, zip(*group, strict=True))) for group in groups]

    def _first_state(self) -> tuple[TrainState, dict]:
        """The newest checkpoint; or the weights to start from; or random ones."""
        params = None
        if self.checkpoints.latest() is None and self.config.init_from:
            params = _load_params(self.config)
        state = init_state(self.config, params)
        if self.checkpoints.latest() is None:
            return state, {"tokens": 0, "rows": 0}
        state, progress = self.checkpoints.restore(state)
        self.progress.say(f"resuming at step {int(state.step):,} in {self.folder}")
        return state, {"tokens": progress["tokens"], "rows": progress["rows"]}

    def _claim_folder(self) -> None:
        """Writes the resolved configuration, or compares with the one that is there."""
        path = self.folder / "config.json"
        config = to_json(self.config)
        if path.exists():
            old = read_json(path)
            found = [d for d in differences(old, config) if d.split(":")[0] not in _FREE]
            if found:
                raise UserError(
                    f"{self.folder}: holds a run with another configuration ({'; '.join(found)});"
                    " choose another --output"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder}: not empty and not a run; choose another --output or empty it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, config)

    def _export(self, state: TrainState) -> None:
        tokenizer = self.data.tokenizer
        model = _with_token_ids(self.config.stage_model(self.config.stages[-1]), tokenizer)
        checkpoint = convert.Checkpoint(
            config=model,
            params=jax.tree.map(np.asarray, state.params),
            head="masked_lm",
            files=tokenizer.files,
        )
        convert.save(checkpoint, self.export_folder, "hf")

    def _seed(self, stage: Stage) -> int:
        return self.config.seed + self.config.stages.index(stage)


def _check_vocabulary(config: PretrainConfig, data: Prepared) -> None:
    if data.tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"{data.folder}: the tokenizer has {data.tokenizer.vocab_size} ids and"
            f" model.vocab_size is {config.model.vocab_size}; pass --model.vocab-size"
            f" {data.tokenizer.vocab_size}"
        )


def _load_params(config: PretrainConfig) -> Any:
    """Parameters of a checkpoint whose architecture is the run's, but for the rotary thetas."""
    checkpoint = convert.load(config.init_from)
    if checkpoint.head != "masked_lm":
        raise UserError(f"{config.init_from}: has no masked-LM head; head is {checkpoint.head}")
    shapes = jax.tree.map(lambda x: x.shape, checkpoint.params)
    wanted = jax.tree.map(lambda x: x.shape, jax.eval_shape(lambda: init_state(config).params))
    if shapes != wanted:
        raise UserError(
            f"{config.init_from}: its parameters do not fit the model;"
            f" {'; '.join(differences(to_json(config.model), to_json(checkpoint.config)))}"
        )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), checkpoint.params)


def _with_token_ids(model, tokenizer):
    """The configuration with the ids of the tokenizer's special tokens."""
    return dataclasses.replace(
        model,
        bos_token_id=tokenizer.cls_id,
        cls_token_id=tokenizer.cls_id,
        eos_token_id=tokenizer.sep_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
    )


def pretrain(config: PretrainConfig) -> bool:
    """Runs or resumes a pretraining run; returns False if it was asked to stop before its end."""
    return Run(config).train()
