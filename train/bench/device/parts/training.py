"""Training steps of whole models: tokens per second, MFU and peak memory."""

import math
import time
from collections.abc import Iterator
from typing import Any

import jax

from modernbert_jax.sharding import rows_sharding
from modernbert_jax.train import engine
from modernbert_jax.train.engine import hardware
from modernbert_jax.train.pretrain import objective

from .. import cases, workloads
from ..registry import register
from ..results import FailedCheckError, Number, Numbers, Result, attempt
from ..scale import Scale
from ..workloads import Workload

WARM_UP, STEPS = 2, 6
"""Steps that do not count, and steps that do."""


@register("base 1024", group="training", order=40, seconds=50)
def base_short(scale: Scale) -> Iterator[Result]:
    """Base, rows of 1,024 tokens; on a CPU the nano model."""
    yield from _measure("nano 64" if scale.tiny else "base 1024", scale)


@register("base 8192", group="training", order=55, seconds=50)
def base_long(scale: Scale) -> Iterator[Result]:
    """Base, rows of 8,192 tokens."""
    yield from _measure("base 8192", scale)


@register("large 1024", group="training", order=65, seconds=50)
def large_short(scale: Scale) -> Iterator[Result]:
    """Large, rows of 1,024 tokens."""
    yield from _measure("large 1024", scale)


@register("large 8192", group="training", order=75, seconds=50)
def large_long(scale: Scale) -> Iterator[Result]:
    """Large, rows of 8,192 tokens."""
    yield from _measure("large 8192", scale)


def _measure(name: str, scale: Scale) -> Iterator[Result]:
    """The result of a workload, in a process that has done nothing else: its memory is its own."""
    if work := workloads.workload(name, scale):
        note = "" if jax.devices()[0].memory_stats() else "the device tells no peak memory"
        yield attempt(work.name, work.labels, lambda: _train(work, scale), note)


def _train(work: Workload, scale: Scale) -> Numbers:
    config = work.config
    (stage,) = config.stages
    mesh = config.mesh.make(jax.devices()[:1])
    documents = cases.lognormal(work.length, stage.rows)
    with jax.set_mesh(mesh):
        mask = workloads.mask_rule(config)
        learner = objective.learner(objective.MaskedLMObjective(config, stage, mask))
        state, fixed = engine.Program(learner, mesh).initial(None, config.seed)
        hyper = objective.hyperparameters(config, stage)
        rows = jax.device_put(workloads.batch(work, documents), rows_sharding(mesh))
        began = time.perf_counter()
        step = learner.train_step(state).lower(state, fixed, hyper, rows).compile()
        compiling = time.perf_counter() - began
        for _ in range(WARM_UP):
            state, metrics = step(state, fixed, hyper, rows)
        jax.block_until_ready(metrics)
        began = time.perf_counter()
        for _ in range(STEPS):
            state, metrics = step(state, fixed, hyper, rows)
        jax.block_until_ready((state, metrics))
        taken = (time.perf_counter() - began) / STEPS
    tokens = sum(map(sum, documents))
    numbers = {
        "speed": Number(tokens / taken, "tokens/s"),
        "step": Number(1e3 * taken, "ms"),
        "compiling": Number(compiling, "s"),
        "loss": Number(float(metrics["loss"]), ""),
    }
    if peak := hardware.peak_of(scale.device_kind):
        numbers["MFU"] = Number(100 * work.flops(documents) / taken / peak, "%")
    numbers |= _memory(step)
    if not math.isfinite(numbers["loss"].value):
        raise FailedCheckError("the loss is not finite", numbers)
    return numbers


def _memory(compiled: jax.stages.Compiled) -> Numbers:
    """Gigabytes by the compiler's account and, where the device tells, those that were used."""
    stats: Any = compiled.memory_analysis()
    arrays = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    numbers = {"compiler's": Number((arrays + stats.temp_size_in_bytes) / 1e9, "GB")}
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return numbers | ({"peak": Number(used / 1e9, "GB")} if used else {})
