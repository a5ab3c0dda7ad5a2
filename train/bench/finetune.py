"""Fine-tuning beside transformers' Trainer, random initialisation and a bag of words.

All sides learn the same examples with the same settings and are measured by the same code, behind
the last update. The Trainer gets the token ids that we train on, and pads each batch to its longest
sequence.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import wide_console

from ..finetune import initial_model
from ..finetune.config import FinetuneConfig
from ..finetune.data import Data
from ..finetune.training import finetune
from . import bag_of_words, number

AS_TRAINER = {
    "optimizer": "adamw",
    "b2": 0.999,
    "eps": 1e-8,
    "clip_norm": 1.0,
    "schedule": "linear",
    "attention_dropout": 0.0,
    "keep_best": False,
    "patience": 0,
    "validation_split": 0.0,
}
"""What all sides have in common, whatever the configuration says: the Trainer's own defaults."""

SUPPORTED = ("classification", "multilabel", "regression", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side found with one seed."""

    side: str
    seed: int
    metrics: Mapping[str, float]
    """On the validation examples, behind the last update."""
    examples_per_second: float | None = None
    """In training, compilation left out."""
    seconds: float | None = None
    """Of training, all told."""


def compare(config: FinetuneConfig, seeds: Sequence[int], sides: Sequence[str]) -> Iterator[Turn]:
    """Trains every side with every seed.

    Raises:
        UserError: a task that the Trainer has no model for, a side that is not known, no
            validation examples, or a peer that is not installed.
    """
    _check(config, sides)
    config = dataclasses.replace(config, **AS_TRAINER, eval_every=config.epochs)
    checkpoint = initial_model.load(config)
    data = Data.read(config, checkpoint.tokenizer)
    for seed in seeds:
        for side in sides:
            if side == "words" and seed != seeds[0]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                of_seed = dataclasses.replace(config, seed=seed, output=f"{folder}/run")
                yield SIDES[side](of_seed, checkpoint, data, Path(folder))


def _ours(init: str, config: FinetuneConfig, checkpoint: Any, data: Data, folder: Path) -> Turn:
    began = time.perf_counter()
    result = finetune(dataclasses.replace(config, init=init))
    if result is None:
        raise KeyboardInterrupt
    return Turn(
        side="ours" if init == "checkpoint" else "random",
        seed=config.seed,
        metrics=result["last"]["metrics"],
        examples_per_second=result["examples_per_second"],
        seconds=time.perf_counter() - began,
    )


def _trainer(
    config: FinetuneConfig, checkpoint: convert.Checkpoint, data: Data, folder: Path
) -> Turn:
    """In a process of its own, on a copy of the checkpoint that transformers reads."""
    convert.save(checkpoint, folder / "model", "hf")
    updates = -(-len(data.train) // config.batch_examples) * config.epochs
    job = {
        "head": data.task.head,
        "labels": data.task.outputs,
        "problem_type": data.task.problem_type,
        "pooling": initial_model.of_task(config, checkpoint.config).classifier_pooling,
        "warmup_steps": round(config.warmup * updates),
        "threads": len(os.sched_getaffinity(0)),
    }
    for name in ("epochs", "batch_examples", "learning_rate", "weight_decay", "b1", "b2", "eps"):
        job[name] = getattr(config, name)
    job |= {"clip_norm": config.clip_norm, "seed": config.seed}
    for split in ("train", "validation"):
        job[split] = list(_pairs(data, split))
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("finetune_peer.py")
    subprocess.run([sys.executable, "-P", script, folder], check=True, stdout=sys.stderr)
    told = json.loads((folder / "told.json").read_text())
    with np.load(folder / "logits.npz") as logits:
        said = iter([logits[str(i)] for i in range(len(logits.files))])
    outputs = [[next(said) for _ in example.sequences] for example in data.validation]
    return Turn(
        side="trainer",
        seed=config.seed,
        metrics=data.task.metrics(data.validation, outputs),
        examples_per_second=len(data.train) * config.epochs / told["seconds"],
        seconds=told["seconds"],
    )


def _pairs(data: Data, split: str) -> Iterator[tuple[list[int], Any]]:
    """Token ids and target of every sequence, as JSON has them."""
    for example in getattr(data, split):
        for j, ids in enumerate(example.sequences):
            target = example.target[j] if data.task.kind == "tokens" else example.target
            yield ids.tolist(), np.asarray(target).tolist()


def _words(config: FinetuneConfig, checkpoint: Any, data: Data, folder: Path) -> Turn:
    began = time.perf_counter()
    metrics = bag_of_words.metrics(config, data)
    seconds = time.perf_counter() - began
    return Turn(side="words", seed=config.seed, metrics=metrics, seconds=seconds)


SIDES: dict[str, Callable[[FinetuneConfig, Any, Data, Path], Turn]] = {
    "ours": functools.partial(_ours, "checkpoint"),
    "random": functools.partial(_ours, "random"),
    "words": _words,
    "trainer": _trainer,
}
"""By the names of the command line."""

TITLES = {
    "ours": "here",
    "random": "here, from random weights",
    "words": "bag of words, scikit-learn",
    "trainer": "transformers' Trainer",
}

_NEEDED = {"words": ("sklearn",), "trainer": ("torch", "transformers", "accelerate")}


def _check(config: FinetuneConfig, sides: Sequence[str]) -> None:
    for side in sides:
        if side not in SIDES:
            raise UserError(f"no side {side!r}; they are {', '.join(SIDES)}")
        missing = [n for n in _NEEDED.get(side, ()) if importlib.util.find_spec(n) is None]
        if missing:
            raise UserError(f"side {side!r} needs {', '.join(missing)}; install it or leave it out")
    if config.task.kind not in SUPPORTED:
        raise UserError(f"task is {config.task.kind}; compared are {', '.join(SUPPORTED)}")
    if not config.validation:
        raise UserError("validation is empty; name the file to compare on with --validation")


def show(turns: Sequence[Turn], metric: str) -> None:
    """Prints mean and deviation over seeds, and speed beside the Trainer's."""
    table = Table("side", box=None, pad_edge=False)
    for heading in (metric, "examples/s", "of the Trainer's", "seconds"):
        table.add_column(heading, justify="right")
    found = summary(turns, metric)
    peer = found.get("trainer", {}).get("examples_per_second")
    for side, row in found.items():
        speed = row["examples_per_second"]
        table.add_row(
            TITLES[side],
            f"{row['mean']:.4f} ± {row['deviation']:.4f}",
            "–" if speed is None else number(speed),
            "–" if speed is None or not peer else f"{speed / peer:.2f}",
            f"{row['seconds']:.0f}",
        )
    wide_console().print(table)


def summary(turns: Sequence[Turn], metric: str) -> dict[str, dict[str, Any]]:
    """By side: mean and deviation of a metric over seeds, and the best speed."""
    found = {}
    for side in dict.fromkeys(turn.side for turn in turns):
        of_side = [turn for turn in turns if turn.side == side]
        scores = [turn.metrics[metric] for turn in of_side]
        speeds = [t.examples_per_second for t in of_side if t.examples_per_second]
        found[side] = {
            "metric": metric,
            "mean": statistics.fmean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
            "seeds": len(scores),
            "examples_per_second": max(speeds, default=None),
            "seconds": min(turn.seconds for turn in of_side),
        }
    return found
