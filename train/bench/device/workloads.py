"""Training steps to measure: the real step of a run, on rows made in memory."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax.config import ModernBertConfig, Remat, Runtime
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.pretrain import objective
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage

from . import cases
from .results import Result
from .scale import Scale

LARGE_MEMORY = 60e9
"""Bytes from which a device takes the larger microbatches."""


TOLERANCE = 10.0
"""Percent by which used memory may differ from the predicted one without a remark."""

MICROBATCHES = 4
"""Microbatches of a step, whose gradients are summed."""


class Workload(NamedTuple):
    """A training step."""

    model: ModernBertConfig
    preset: str
    """Name of the model."""
    length: int
    """Tokens in a row."""
    rows: int
    """Rows of a microbatch."""
    microbatches: int
    remat: Remat

    @property
    def name(self) -> str:
        """Identifies results."""
        return f"{self.preset} {self.length}"

    @property
    def labels(self) -> dict[str, str]:
        """Columns of a table."""
        return {
            "model": self.preset,
            "tokens": f"{self.length:,}",
            "microbatches x rows": f"{self.microbatches} x {self.rows}",
            "remat": self.remat,
        }

    @property
    def config(self) -> PretrainConfig:
        """The run that the step belongs to."""
        batch = self.rows * self.microbatches
        stage = Stage(
            name="device",
            tokens=1000 * batch * self.length,
            length=self.length,
            rows=batch,
            microbatch_rows=self.rows,
            peak_learning_rate=1e-4,
        )
        runtime = Runtime(dtype="bfloat16", remat=self.remat)
        return PretrainConfig(
            model=self.model, stages=(stage,), runtime=runtime, mesh=MeshShape(data=1)
        )

    def flops(self, documents: list[list[int]]) -> float:
        """Operations of a step on these rows; what is computed twice to save memory counts once."""
        lengths = np.concatenate(documents).astype(float)
        seen = float((lengths**2).sum() / lengths.sum())
        config = self.config
        return 3 * config.model.flops_per_token(seen, config.stages[0].mask_rate) * lengths.sum()


def workloads(scale: Scale) -> list[Workload]:
    """Base and large in short and long rows; on a CPU the nano model.

    Microbatches are those of `docs/results/plans.md` for an H100, without rematerialisation;
    devices with less memory take small ones and recompute everything.
    """
    sizes: list[tuple[str, int, int, Remat]]
    if scale.tiny:
        sizes = [("nano", 64, 2, "none")]
    elif scale.memory >= LARGE_MEMORY:
        sizes = [("base", 1024, 48, "none"), ("base", 8192, 6, "none")]
        sizes += [("large", 1024, 22, "none"), ("large", 8192, 2, "none")]
    else:
        sizes = [("base", 1024, 8, "full"), ("base", 8192, 1, "full")]
        sizes += [("large", 1024, 4, "full"), ("large", 8192, 1, "full")]
    return [
        Workload(scale.model(preset), preset, length, rows, MICROBATCHES, remat)
        for preset, length, rows, remat in sizes
    ]


def workload(name: str, scale: Scale) -> Workload | None:
    """The workload of a name; None where this device has other ones."""
    return next((w for w in workloads(scale) if w.name == name), None)


def compile_for(work: Workload, mesh: Mesh) -> Any:
    """Compiles the step for devices that may be absent."""
    config = work.config
    (stage,) = config.stages
    with jax.set_mesh(mesh):
        step, arguments = objective.abstract_step(config, stage, mask_rule(config), mesh)
        return step.lower(*arguments).compile()


def mask_rule(config: PretrainConfig) -> objective.MaskRule:
    """Masks of a vocabulary whose first ids are special."""
    vocabulary = config.model.vocab_size
    return objective.MaskRule(mask_id=4, vocab_size=vocabulary, special_ids=(0, 1, 2, 3, 4))


def batch(work: Workload, documents: list[list[int]]) -> Rows:
    """Random tokens in documents of these lengths."""
    config = work.config
    ids = cases.segments(documents, work.length)
    tokens = np.random.default_rng(0).integers(5, config.model.vocab_size, ids.shape, np.int32)
    return Rows(tokens, ids, cases.positions(ids))


def with_predictions(results: list[Result]) -> list[Result]:
    """Training results with the memory that was predicted for them, and their ratio in percent.

    A difference beyond `TOLERANCE` is noted.
    """
    predicted = {
        r.name: r.numbers["predicted"] for r in results if r.group == "memory" and r.numbers
    }
    merged = []
    for result in results:
        if result.group == "training" and result.name in predicted:
            numbers = dict(result.numbers) | {"predicted": predicted[result.name]}
            note = result.note
            if "peak" in numbers:
                share = 100 * numbers["peak"].value / numbers["predicted"].value
                numbers["of predicted"] = numbers["peak"]._replace(value=share, unit="%")
                if abs(off := share - 100) > TOLERANCE:
                    where = "above" if off > 0 else "below"
                    note = f"peak memory is {abs(off):.0f} % {where} the prediction"
            result = dataclasses.replace(result, numbers=numbers, note=note)
        merged.append(result)
    return merged
