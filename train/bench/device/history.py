"""Runs of a device over time: `docs/results/hardware/<device>.json`, and what became slower."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json

from .results import SCHEMA, Result
from .table import key

TOLERANCE = 0.05
"""Relative loss of speed from which a result counts as slower."""

FASTER = {"ms": -1, "tokens/s": 1}
"""Units of speed: whether more (1) or less (-1) of it is better. Rates follow from times."""


def record(
    facts: Mapping[str, Any], results: Sequence[Result], seconds: float, minutes: float
) -> dict[str, Any]:
    """A run as a JSON object."""
    return {
        "schema": SCHEMA,
        **facts,
        "seconds": round(seconds, 1),
        "minutes": minutes,
        "results": [r.to_json() for r in results],
    }


def read_run(path: Path) -> dict[str, Any]:
    """A run from its file. Raises `UserError` if it is none."""
    return check(read_json(path), str(path))


def check(run: Any, where: str) -> dict[str, Any]:
    """The run. Raises `UserError` if this is none, or of a later schema."""
    if not isinstance(run, dict) or not {"schema", "device", "results"} <= set(run):
        raise UserError(f"{where}: not a run of bench device")
    if run["schema"] > SCHEMA:
        raise UserError(f"{where}: schema {run['schema']}; this version reads up to {SCHEMA}")
    return run


def slug(device: str) -> str:
    """File name of a device."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def runs(folder: Path, device: str) -> list[dict[str, Any]]:
    """All runs of a device in a folder, the oldest first."""
    path = folder / f"{slug(device)}.json"
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(runs, list):
        raise UserError(f"{path}: it must hold a list of runs")
    return [check(run, str(path)) for run in runs]


def append(folder: Path, run: dict[str, Any]) -> Path:
    """Adds a run to the file of its device; a run that is there already is not added again."""
    path = folder / f"{slug(run['device'])}.json"
    before = runs(folder, run["device"])
    if not any(old["date"] == run["date"] and old["commit"] == run["commit"] for old in before):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, [*before, run])
    return path


def slower(run: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, str]:
    """Remarks on results that lost more than `TOLERANCE` since an earlier run, by `key`."""
    old = {key(r): r for r in map(Result.from_json, before["results"]) if r.status == "ok"}
    remarks = {}
    for result in map(Result.from_json, run["results"]):
        if result.status != "ok" or key(result) not in old:
            continue
        losses = []
        for name, number in result.numbers.items():
            earlier = old[key(result)].numbers.get(name)
            if earlier is None or number.unit not in FASTER or not earlier.value > 0:
                continue
            ratio = number.value / earlier.value
            loss = (ratio if FASTER[number.unit] < 0 else 1 / max(ratio, 1e-9)) - 1
            if loss > TOLERANCE:
                losses.append(f"{name} {100 * loss:.0f} % slower")
        if losses:
            remarks[key(result)] = f"{', '.join(losses)} than on {before['date'].split(' ')[0]}"
    return remarks
