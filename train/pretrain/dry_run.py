"""Dry run of a pretraining: its tokens, steps, batches, schedule and hours.

Everything follows from the configuration; no data, checkpoint or accelerator is needed.
"""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from modernbert_jax.io import tables
from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.text import for_plot

from ..engine.hyperparameters import decay_warning
from ..engine.machine import Machine, duration, short_tokens
from .batch_size import microbatches
from .config import PretrainConfig, Stage


def plan(config: PretrainConfig, machine: Machine) -> dict[str, Any]:
    """Compute the facts of a run on a machine, as a JSON object.

    FLOPs assume full rows of one document each, the highest cost of attention. Recomputation is not
    counted.
    """
    stages = [
        _stage(config, stage, start, machine)
        for stage, start in zip(config.stages, config.starts, strict=False)
    ]
    return {
        "parameters": config.model.parameter_count(),
        "stages": stages,
        "steps": config.starts[-1],
        "tokens": sum(stage["tokens"] for stage in stages),
        "flops": sum(stage["flops"] for stage in stages),
        "hours": sum(stage["hours"] for stage in stages),
        **machine._asdict(),
    }


def _stage(config: PretrainConfig, stage: Stage, start: int, machine: Machine) -> dict[str, Any]:
    batches, rate, model = stage.batches, stage.learning_rate(), config.stage_model(stage)
    tokens = batches.rows * stage.length
    flops = 3.0 * model.flops_per_token(stage.length, stage.mask_rate) * tokens
    return {
        "name": stage.name,
        "tokens": tokens,
        "steps": batches.steps,
        "start": start,
        "length": stage.length,
        "batches": [
            {
                "rows": phase.rows,
                "microbatches": microbatches(phase.rows, stage.microbatch_rows),
                "from_step": start + phase.step,
                "from_token": phase.row * stage.length,
            }
            for phase in batches.phases
        ],
        "learning_rate": [float(rate(0)), stage.peak_learning_rate, float(rate(batches.steps))],
        "warmup_tokens": stage.rise_tokens,
        "decay_tokens": stage.fall_tokens,
        "decay_shape": stage.decay_shape,
        "weight_decay": stage.weight_decay,
        "mask_rate": stage.mask_rate,
        "rope_theta": [model.global_rope_theta, model.local_rope_theta],
        "eval_every": stage.eval_every or config.eval_every,
        "save_every": stage.save_every or config.save_every,
        "flops": flops,
        "hours": machine.hours(flops),
    }


def text(config: PretrainConfig, machine: Machine, facts: dict[str, Any]) -> str:
    """Format the facts of `plan` as a table with a column for each stage."""
    stages = facts["stages"]
    rows = [["", *(stage["name"] for stage in stages)]]
    for label, cell in _ROWS.items():
        rows.append([label, *(cell(stage) for stage in stages)])
    lines = tables.lines(rows)
    for stage in stages:
        if len(stage["batches"]) > 1:
            lines += ["", f"batches of {stage['name']}, from step (and token) on"]
            for batch in stage["batches"]:
                rows, each = batch["rows"], batch["rows"] // batch["microbatches"]
                start = f"{batch['from_step']:>9,} ({short_tokens(batch['from_token'])})"
                lines.append(f"  {start}  {rows:,} rows in microbatches of {each:,}")
    if config.optimizer == "stable_adamw":
        rates = ((stage["weight_decay"], stage["learning_rate"][1]) for stage in stages)
        lines += dict.fromkeys(filter(None, (decay_warning(*pair) for pair in rates)))
    origin = f"starts from {config.init_from or 'random weights'}"
    if config.init_model == "adopted":
        origin += "; numbers are for the model above, training uses that of the checkpoint"
    if config.init_model == "tiled" and config.init_from:
        origin += f", tiled from the {config.init_tiling}"
    return "\n".join(
        [
            f"{facts['parameters']:,} parameters, {origin}",
            *lines,
            "",
            f"in all {facts['steps']:,} steps, {short_tokens(facts['tokens'])} tokens,"
            f" {facts['flops']:.3g} FLOPs: {duration(facts['hours'])} on {machine}",
        ]
    )


def _batch(stage: dict[str, Any]) -> str:
    sizes = [f"{batch['rows']:,}" for batch in stage["batches"]]
    return ", ".join(sizes if len(sizes) < 4 else [sizes[0], "...", sizes[-1]])


_ROWS = {
    "tokens": lambda s: short_tokens(s["tokens"]),
    "steps": lambda s: f"{s['steps']:,}",
    "first step": lambda s: f"{s['start'] + 1:,}",
    "tokens in a row": lambda s: f"{s['length']:,}",
    "rows in a batch": _batch,
    "tokens in a full batch": lambda s: short_tokens(s["batches"][-1]["rows"] * s["length"]),
    "microbatches": lambda s: f"{s['batches'][-1]['microbatches']}",
    "learning rate, first": lambda s: f"{s['learning_rate'][0]:.3g}",
    "  peak": lambda s: f"{s['learning_rate'][1]:.3g}",
    "  last": lambda s: f"{s['learning_rate'][2]:.3g}",
    "  rises over": lambda s: short_tokens(s["warmup_tokens"]) if s["warmup_tokens"] else "-",
    "  falls over": lambda s: short_tokens(s["decay_tokens"]) if s["decay_tokens"] else "-",
    "  shape of the fall": lambda s: s["decay_shape"] if s["decay_tokens"] else "-",
    "weight decay": lambda s: f"{s['weight_decay']:.3g}",
    "tokens masked": lambda s: f"{s['mask_rate']:.0%}",
    "rotary theta, global": lambda s: f"{s['rope_theta'][0]:,.0f}",
    "  local": lambda s: f"{s['rope_theta'][1]:,.0f}",
    "steps between evaluations": lambda s: f"{s['eval_every']:,}",
    "steps between checkpoints": lambda s: f"{s['save_every']:,}",
    "FLOPs": lambda s: f"{s['flops']:.3g}",
    "hours": lambda s: f"{s['hours']:,.1f}",
}


def draw(config: PretrainConfig, path: str | Path) -> Path:
    """Draw learning rate and batch size over tokens as a PNG file; return its path."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    rates, sizes = figure.subplots(2, 1, sharex=True)
    seen = 0.0
    for i, stage in enumerate(config.stages):
        batches = stage.batches
        changes = [s.step for s in batches.phases[1:]]
        steps = np.unique(
            np.concatenate([np.linspace(0, batches.steps, 400).astype(int), changes])
        ).astype(int)
        rows = np.array([batches.rows_before(int(step)) for step in steps], np.float64)
        tokens = (seen + rows * stage.length) / 1e9
        size = [batches.at(int(step)).rows * stage.length / 1e6 for step in steps]
        rates.plot(
            tokens,
            jax.vmap(stage.learning_rate())(steps),
            color=f"C{i}",
            label=for_plot(stage.name),
        )
        sizes.step(tokens, size, where="post", color=f"C{i}")
        seen += batches.rows * stage.length
    for axis, label in ((rates, "learning rate"), (sizes, "million tokens in a batch")):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
    figure.legend(loc="outside upper center", ncols=len(config.stages))
    sizes.set_xlabel("billion tokens")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(path, buffer.getvalue())
    return Path(path)
