"""Parts of the model cards of all runs over examples: header, results and settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import ExamplesConfig

NAME = "README.md"
"""File of the card in a model's directory."""

SETTINGS = (
    "epochs",
    "batch_examples",
    "learning_rate",
    "warmup",
    "schedule",
    "optimizer",
    "weight_decay",
    "attention_dropout",
    "layer_decay",
    "seed",
)
"""Fields of every configuration that cards show."""


def header(values: Mapping[str, Any], model: str) -> list[str]:
    """Lines of the hub's header; `model` is the one that the run started from."""
    base = {"base_model": model} if "/" in model and not Path(model).exists() else {}
    lines = (f"{key}: {json.dumps(value)}" for key, value in {**values, **base}.items())
    return ["---", *lines, "---", ""]


def start(model: str) -> str:
    """Name of the model that a run started from; that of a run is clearer than `export`."""
    path = Path(model)
    return path.parent.name if path.name == "export" else path.name


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of a table with the metrics of "best", "last" and "test", where measured."""
    measured = {
        name: result[name]["metrics"] for name in ("best", "last", "test") if name in result
    }
    if not measured:
        return ["No metrics were measured."]
    names = list(dict.fromkeys(name for metrics in measured.values() for name in metrics))
    heads = {"best": "validation, best", "last": "validation, last", "test": "test"}
    lines = ["| | " + " | ".join(heads[name] for name in measured) + " |"]
    lines += ["| --- |" + " --- |" * len(measured)]
    for name in names:
        cells = (metrics.get(name) for metrics in measured.values())
        lines.append(f"| {name} | " + " | ".join(map(_number, cells)) + " |")
    return lines


def settings(config: ExamplesConfig, names: Sequence[str], result: Mapping[str, Any]) -> list[str]:
    """Lines of a table with fields of the configuration."""
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {getattr(config, name)} |" for name in names]
    if config.lora.rank:
        lines.append(f"| LoRA | rank {config.lora.rank}, alpha {config.lora.alpha:g}, merged |")
    if "step" in result.get("best", {}):
        lines.append(f"| steps of the exported model | {result['best']['step']:,} |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
