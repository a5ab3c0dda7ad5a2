"""The implementation of attention that a run found right and fastest, for tuning files."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.attention import choice, tuning
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json

from .results import Result
from .scale import Scale


def implementations(run: Mapping[str, Any]) -> dict[str, str]:
    """Names by entry of a tuning file, such as "full 64 bfloat16"; empty on a CPU.

    Every check of an implementation must have succeeded. Of those that have a time for every case,
    the one whose geometric mean over both passes is least is recommended.
    """
    if run["platform"] == "cpu":  # whose times mean nothing
        return {}
    checked: dict[tuple[str, str], set[str]] = {}
    times: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    width = Scale(platform=run["platform"], device_kind=run["device"]).head_dim
    for result in map(Result.from_json, run["results"]):
        labels = result.labels
        if not {"layer", "type", "implementation"} <= labels.keys():
            continue  # of another group, or of a part that failed as a whole
        entry, name = f"{labels['layer']} {width} {labels['type']}", labels["implementation"]
        if result.group == "attention":
            checked.setdefault((entry, name), set()).add(result.status)
        elif (result.group, result.status) == ("kernels", "ok") and name in choice.IMPLEMENTATIONS:
            case = labels["tokens"], labels["documents"]
            own = times.setdefault(entry, {}).setdefault(name, {})
            own[case] = result.numbers["both"].value
    names = {}
    for entry, by_name in times.items():
        right = {name: own for name, own in by_name.items() if checked.get((entry, name)) == {"ok"}}
        if best := fastest(right):
            names[entry] = best
    return names


def fastest(times: Mapping[str, Mapping[Any, float]]) -> str | None:
    """The name of the least geometric mean, among those that have a time for every case."""
    cases = {case for own in times.values() for case in own}
    means = {
        name: statistics.geometric_mean(own.values())
        for name, own in times.items()
        if own.keys() == cases
    }
    return min(means, key=means.__getitem__, default=None)


def adopt(path: Path, run: Mapping[str, Any]) -> None:
    """Write a run's recommendations into a tuning file, which need not exist.

    They go into the entries of the longest name that the device's begins with, so that its options
    remain in use.
    """
    names = implementations(run)
    if not names:
        return
    table = read_json(path) if path.exists() else {}
    known = [name for name in table if run["device"].startswith(name)]
    entries = table.setdefault(max(known, key=len, default=run["device"]), {})
    for entry, name in names.items():
        entries[entry] = {"implementation": name} | {
            key: value for key, value in entries.get(entry, {}).items() if key != "implementation"
        }
    tuning.parse(table, "recommended implementations")
    write_json(path, table)
