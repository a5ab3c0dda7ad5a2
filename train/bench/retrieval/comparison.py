"""Train and measure all sides, and keep what is done: an interrupted comparison resumes."""

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json

from ...engine.run_folder import RunFolder
from ...retrieval.encoding import PairScorer
from ...retrieval.evaluation import of_run
from . import measuring, process, sides
from .case import Case
from .settings import TRAINED, Settings, Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a side has reached on a data set with a seed."""

    data: str
    kind: str
    side: Side
    seed: int
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """nDCG@10, MRR@10 and recall@100 on the test, of sparse vectors also the mean numbers of their
    weights, `active_query` and `active_document`; empty where the side failed."""
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
    chosen = case.settings.sides
    for side in chosen:
        if side not in TRAINED and (side, case.kind) != ("bm25", "reranker"):
            yield _kept(case, side, case.settings.seeds[0])
    for seed in case.settings.seeds:
        for side in chosen:
            if side in TRAINED and (side != "peer-cached" or case.facts.cached):
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
    plan = sides.Plan.of(case, seed)
    if side == "ours":
        training = sides.ours(case, folder, plan)
    else:
        training = sides.peer(case, folder, plan, cached=side == "peer-cached")
    own: dict[str, Any] = {"data": case.name, "kind": case.kind, "side": side, "seed": seed}
    own["examples"] = sum(map(len, plan.batches))
    try:
        process.run(training.command, folder / "log.txt", case.settings.memory)
    except process.OutOfMemory as error:
        return Result(**own, failure=str(error))
    facts = json.loads((folder / "trained.json").read_text())
    if facts.pop("steps") != plan.steps:
        raise RuntimeError(f"{folder}: made other steps than the {plan.steps} that were planned")
    models = {step: training.checkpoints / str(step) for step in plan.kept}
    probe = measuring.probe_loss(case, models | {0: case.start(seed)})
    result = Result(
        **own,
        **facts,
        metrics=measuring.quality(case, training.export),
        probe={str(step): loss for step, loss in probe.items()},
    )
    if case.settings.keep_models:
        kept = case.folder / "models" / folder.name
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(exist_ok=True)
        training.export.rename(kept)
    shutil.rmtree(folder)
    return result


def _check(settings: Settings) -> None:
    if {*settings.sides} & {"peer", "peer-cached"} and settings.peer_python is None:
        needed = ("torch", "sentence_transformers", "datasets", "accelerate")
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"the peer needs {', '.join(missing)}; name a Python that has them with"
                " --peer-python, or leave the peer out of --sides"
            )
    if "late-interaction-distilled" in settings.kinds:
        PairScorer.load(settings.teacher)
