"""Train and measure all sides, and keep what is done: an interrupted comparison resumes."""

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json

from ...engine.run_folder import RunFolder
from ...retrieval import config as retrieval
from ...retrieval.evaluation import of_run
from ...retrieval.sampling import Sampler
from . import measuring, process
from .case import Case, Pairs
from .ours import THREADS
from .settings import TRAINED, Settings, Side

PEER = Path(__file__).with_name("peer.py")
OURS = Path(__file__).with_name("ours.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a side has reached on a data set with a seed."""

    data: str
    kind: str
    side: Side
    seed: int
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """nDCG@10, MRR@10 and recall@100 on the test; empty where the side failed."""
    examples: int = 0
    """Examples of the training, all epochs together."""
    seconds: float = 0.0
    """Seconds of the training in all, without the probe's checkpoints. Ours include reading,
    tokenizing, compiling and the export."""
    step_seconds: float = 0.0
    """Seconds of the steps, with waiting for their data."""
    compile_seconds: float = 0.0
    peak_memory: int = 0
    """Largest resident memory of the process, in bytes."""
    probe: dict[str, float] = dataclasses.field(default_factory=dict)
    """Loss of the kept groups by step."""
    failure: str = ""
    """Why there is no result, such as too much memory."""


def compare(settings: Settings) -> Iterator[Result]:
    """Yield the result of every side, data set, kind and seed, as they are done.

    Raises:
        UserError: data or a model that cannot be read, a side that cannot run, or a folder with
            another comparison.
    """
    _check(settings)
    inputs = {"data": fingerprint.of_paths(settings.data)}
    folder = RunFolder(Path(settings.output), settings.to_json(), settings.FREE, inputs=inputs)
    folder.check()
    with folder.held():
        folder.claim()
        for data in settings.data:
            for kind in settings.kinds:
                yield from _case(Case(settings, data, kind))


def _case(case: Case) -> Iterator[Result]:
    sides = case.settings.sides
    for side in sides:
        if side not in TRAINED and (side, case.kind) != ("bm25", "reranker"):
            yield _kept(case, side, case.settings.seeds[0])
    for seed in case.settings.seeds:
        for side in sides:
            if side == "peer-cached" and case.kind == "reranker":
                continue
            if side in TRAINED:
                yield _kept(case, side, seed)
        case.clear(f"start-{seed}")


def _kept(case: Case, side: Side, seed: int) -> Result:
    """The result that is on disk, or a new one."""
    path = case.folder / "results" / f"{side}-{seed}.json"
    if path.exists():
        return Result(**read_json(path))
    result = _trained(case, side, seed) if side in TRAINED else _untrained(case, side, seed)
    write_json(path, dataclasses.asdict(result))
    return result


def _untrained(case: Case, side: Side, seed: int) -> Result:
    if side == "bm25":
        metrics = of_run(case.first_stage(), case.test.qrels, measuring.METRICS)
    else:
        metrics = measuring.quality(case, case.start(seed))
    return Result(data=case.name, kind=case.kind, side=side, seed=seed, metrics=metrics)


def _trained(case: Case, side: Side, seed: int) -> Result:
    """Train in a process of its own, then measure the model and its checkpoints here."""
    folder = case.folder / f"{side}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    folder.mkdir(parents=True)
    pairs = case.pairs()
    plan = batches(case, pairs, seed)
    every = max(1, len(plan) // case.settings.probes)
    keep = sorted({*range(0, len(plan), every), len(plan)})
    if side == "ours":
        command, checkpoints, export = _ours(case, folder, seed, len(plan), every)
    else:
        command, checkpoints, export = _peer(case, side, folder, seed, pairs, plan, keep)
    own: dict[str, Any] = {"data": case.name, "kind": case.kind, "side": side, "seed": seed}
    own["examples"] = sum(map(len, plan))
    try:
        process.run(command, folder / "log.txt", case.settings.memory)
    except process.OutOfMemory as error:
        return Result(**own, failure=str(error))
    facts = json.loads((folder / "trained.json").read_text())
    if facts.pop("steps") != len(plan):
        raise RuntimeError(f"{folder}: made other steps than the {len(plan)} that were planned")
    models = {0: case.start(seed)} | {step: checkpoints / str(step) for step in keep[1:]}
    probe = measuring.probe_loss(case, models)
    result = Result(
        **own,
        **facts,
        metrics=measuring.quality(case, export),
        probe={str(step): loss for step, loss in probe.items()},
    )
    shutil.rmtree(folder)
    return result


def _ours(
    case: Case, folder: Path, seed: int, steps: int, every: int
) -> tuple[Sequence[str | Path], Path, Path]:
    """Command of our side, and the folders of its checkpoints and its model."""
    config = case.settings.config(
        case.kind,
        seed,
        model=str(case.start(seed)),
        train=(str(case.training_file()),),
        output=str(folder / "run"),
        save_every=every,
        keep=case.settings.probes + 2,
    )
    whole = round(config.warmup * steps) / steps  # transformers takes a whole number of steps
    config = dataclasses.replace(config, warmup=whole)
    write_json(folder / "config.json", retrieval.to_json(config) | {THREADS: _threads()})
    return (
        [sys.executable, "-P", OURS, folder],
        folder / "run" / "checkpoints",
        folder / "run" / "export",
    )


def _peer(
    case: Case,
    side: Side,
    folder: Path,
    seed: int,
    pairs: Pairs,
    plan: list[list[int]],
    keep: list[int],
) -> tuple[Sequence[str | Path], Path, Path]:
    """Command of sentence-transformers' side, and the folders of its checkpoints and its model."""
    config = case.settings.config(case.kind, seed)
    job = {
        "kind": case.kind,
        "model": str(case.start(seed)),
        "columns": pairs.columns,
        "texts": pairs.texts,
        "labels": pairs.labels,
        "batches": plan,
        "keep_steps": keep,
        "warmup_steps": round(config.warmup * len(plan)),
        "cached": side == "peer-cached",
        "scale": measuring.SCALE,
        "threads": _threads(),
    }
    job |= {
        name: getattr(config, name)
        for name in (
            *("learning_rate", "schedule", "weight_decay", "b1", "b2", "eps", "clip_norm", "seed"),
            *("max_length", "microbatch_tokens"),
        )
    }
    (folder / "job.json").write_text(json.dumps(job))
    python = case.settings.peer_python or sys.executable
    return [python, "-P", PEER, folder], folder / "steps", folder / "export"


def batches(case: Case, pairs: Pairs, seed: int) -> list[list[int]]:
    """Examples of every step, as our side draws them."""
    training = case.settings.training(case.kind)
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(text, len(numbers)) for text in row] for row in pairs.texts]
    unique = case.kind != "reranker"
    sampler = Sampler(
        [np.array(rows)], training.batch_examples, seed, unique=unique, least=2 if unique else 1
    )
    return [
        sampler.members(step).examples.tolist() for step in range(sampler.steps(training.epochs))
    ]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(settings: Settings) -> None:
    if {*settings.sides} & {"peer", "peer-cached"} and settings.peer_python is None:
        needed = ("torch", "sentence_transformers", "datasets", "accelerate")
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"the peer needs {', '.join(missing)}; name a Python that has them with"
                " --peer-python, or leave the peer out of --sides"
            )
