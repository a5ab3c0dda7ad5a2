"""The two sides that train: each gets the same batches and settings in a folder, and a command."""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modernbert_jax.io.files import write_json

from ...retrieval import config as retrieval
from ...retrieval.sampling import Sampler
from . import measuring
from .case import Case
from .ours import THREADS

PEER = Path(__file__).with_name("peer.py")
OURS = Path(__file__).with_name("ours.py")

_SHARED = (
    *("learning_rate", "schedule", "weight_decay", "b1", "b2", "eps", "clip_norm", "seed"),
    *("max_length", "microbatch_tokens", "query_flops", "document_flops"),
)
"""Fields of a configuration that sentence-transformers' side gets as they are."""


class Plan(NamedTuple):
    """What both sides do with a seed."""

    seed: int
    batches: list[list[int]]
    """Examples of every step, as our side draws them."""
    every: int
    """Steps between two checkpoints for the probe."""

    @classmethod
    def of(cls, case: Case, seed: int) -> "Plan":
        """The batches of a seed."""
        drawn = batches(case, seed)
        return cls(seed, drawn, max(1, len(drawn) // case.settings.probes))

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.batches)

    @property
    def kept(self) -> list[int]:
        """Steps after which the probe is evaluated, 0 for the start."""
        return sorted({*range(0, self.steps, self.every), self.steps})

    def whole(self, share: float) -> float:
        """The share of the steps that is a whole number of them, as transformers counts."""
        return round(share * self.steps) / self.steps


class Launch(NamedTuple):
    """A side that is ready to train."""

    command: Sequence[str | Path]
    checkpoints: Path
    """Folder of the models for the probe, by step."""
    export: Path
    """The model after the last step."""


def ours(case: Case, folder: Path, plan: Plan) -> Launch:
    """Our side, in a folder."""
    config = case.config(
        plan.seed,
        model=str(case.start(plan.seed)),
        train=(str(case.training_file()),),
        output=str(folder / "run"),
        save_every=plan.every,
        keep=case.settings.probes + 2,
    )
    config = dataclasses.replace(config, warmup=plan.whole(config.warmup))
    if config.kind == "sparse":
        ramp = max(1, int(config.flops_ramp * plan.steps))  # sentence-transformers' whole steps
        config = dataclasses.replace(config, flops_ramp=ramp / plan.steps)
    write_json(folder / "config.json", retrieval.to_json(config) | {THREADS: _threads()})
    return Launch(
        [sys.executable, "-P", OURS, folder],
        folder / "run" / "checkpoints",
        folder / "run" / "export",
    )


def peer(case: Case, folder: Path, plan: Plan, *, cached: bool) -> Launch:
    """Side of sentence-transformers, in a folder; `cached` is with its gradient cache."""
    config = case.config(plan.seed)
    job = {
        "kind": config.kind,
        "loss": config.loss.name,
        "model": str(case.start(plan.seed)),
        "columns": case.examples.columns,
        "texts": case.examples.texts,
        "targets": case.examples.targets,
        "batches": plan.batches,
        "keep_steps": plan.kept,
        "warmup_steps": round(config.warmup * plan.steps),
        "cached": cached,
        "scale": measuring.SCALE,
        "threads": _threads(),
    }
    job |= {name: getattr(config, name) for name in _SHARED}
    (folder / "job.json").write_text(json.dumps(job))
    python = case.settings.peer_python or sys.executable
    return Launch([python, "-P", PEER, folder], folder / "steps", folder / "export")


def batches(case: Case, seed: int) -> list[list[int]]:
    """Examples of every step, as our side draws them."""
    config = case.config(seed)
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(x, len(numbers)) for x in row] for row in case.examples.texts]
    unique = config.loss.loss(config.kind).in_batch
    sampler = Sampler(
        [np.array(rows)], config.batch_examples, seed, unique=unique, least=2 if unique else 1
    )
    steps = range(sampler.steps(config.epochs))
    return [sampler.members(step).examples.tolist() for step in steps]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
