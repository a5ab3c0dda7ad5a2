"""Fine-tuning beside transformers' Trainer, random initialisation and a bag of words.

All sides train on the same examples with the same settings and are measured by the same code, after
the last step. The Trainer gets the token ids that we train on, and pads each batch to its longest
sequence.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import wide_console

from ..finetune import initial_model
from ..finetune.config import FinetuneConfig
from ..finetune.data import Data
from ..finetune.training import finetune
from . import bag_of_words, children, number

AS_TRAINER: dict[str, Any] = {
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
"""Settings of all sides, which override the configuration: the Trainer's own defaults."""

_SHARED = (
    *("epochs", "batch_examples", "learning_rate", "weight_decay", "b1", "b2", "eps"),
    *("clip_norm", "seed"),
)
"""Settings that the Trainer's job repeats."""

SUPPORTED = ("classification", "multilabel", "regression", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """The result of one side with one seed."""

    side: str
    seed: int
    metrics: Mapping[str, float]
    """Metrics on the validation examples, after the last step."""
    examples_per_second: float | None = None
    """Training speed, without compilation."""
    seconds: float | None = None
    """Seconds of training, in all."""


def compare(config: FinetuneConfig, seeds: Sequence[int], sides: Sequence[str]) -> Iterator[Turn]:
    """Train every side with every seed; the bag of words, which has no seed, once.

    Raises:
        UserError: a task without a model of the Trainer, an unknown side, no validation examples,
            or a peer that is not installed.
    """
    _check(config, sides)
    config = dataclasses.replace(config, **AS_TRAINER, eval_every=config.epochs)
    checkpoint = initial_model.load(config)
    data = Data.read(config, checkpoint.need_tokenizer(config.model))
    for seed in seeds:
        for side in sides:
            if side == "words" and seed != seeds[0]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                seeded = dataclasses.replace(config, seed=seed, output=f"{folder}/run")
                yield SIDES[side](seeded, checkpoint, data, Path(folder))


def _ours(
    init: Literal["checkpoint", "random"],
    config: FinetuneConfig,
    checkpoint: Any,
    data: Data,
    folder: Path,
) -> Turn:
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
    """Train in a process of its own, on a copy of the checkpoint in transformers' format."""
    convert.save(checkpoint, folder / "model", "hf")
    steps = -(-len(data.train) // config.batch_examples) * config.epochs
    job = {
        "head": data.task.head,
        "labels": data.task.outputs,
        "problem_type": data.task.problem_type,
        "pooling": initial_model.of_task(config, checkpoint.config).classifier_pooling,
        "warmup_steps": round(config.warmup * steps),
        "threads": len(os.sched_getaffinity(0)),
    }
    job |= {name: getattr(config, name) for name in _SHARED}
    job |= {split: list(_pairs(data, split)) for split in ("train", "validation")}
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("finetune_peer.py")
    with children.child([sys.executable, "-P", script, folder], stdout=sys.stderr) as process:
        code = process.wait()
    if code:
        raise RuntimeError(f"the process of the Trainer ended with exit code {code}")
    seconds = json.loads((folder / "result.json").read_text())["seconds"]
    with np.load(folder / "logits.npz") as arrays:
        logits = iter([arrays[str(i)] for i in range(len(arrays.files))])
    outputs = [[next(logits) for _ in example.sequences] for example in data.validation]
    return Turn(
        side="trainer",
        seed=config.seed,
        metrics=data.task.metrics(data.validation, outputs),
        examples_per_second=len(data.train) * config.epochs / seconds,
        seconds=seconds,
    )


def _pairs(data: Data, split: str) -> Iterator[tuple[list[int], Any]]:
    """Yield token ids and target of every sequence, ready for JSON."""
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
"""Sides by their names on the command line."""

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
    """Print mean and deviation over seeds, and speed relative to the Trainer's."""
    table = Table("side", box=None, pad_edge=False)
    for heading in (metric, "examples/s", "of the Trainer's", "seconds"):
        table.add_column(heading, justify="right")
    results = summary(turns, metric)
    peer = results.get("trainer", {}).get("examples_per_second")
    for side, row in results.items():
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
    """Mean and deviation of a metric over seeds, and the best speed, by side."""
    results = {}
    for side in dict.fromkeys(turn.side for turn in turns):
        own = [turn for turn in turns if turn.side == side]
        scores = [turn.metrics[metric] for turn in own]
        seconds = [turn.seconds for turn in own if turn.seconds is not None]
        speeds = [turn.examples_per_second for turn in own if turn.examples_per_second]
        results[side] = {
            "metric": metric,
            "mean": statistics.fmean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
            "seeds": len(scores),
            "examples_per_second": max(speeds, default=None),
            "seconds": min(seconds, default=None),
        }
    return results
