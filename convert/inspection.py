"""Describe a checkpoint: as JSON for programs, as tables for people."""

import dataclasses
import json
import math
import os
from typing import TYPE_CHECKING, Any

from modernbert_jax.io import text
from modernbert_jax.tokenizer import ROLES

from . import formats, locating, names
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def inspect(path: str | os.PathLike) -> dict[str, Any]:
    """Facts that fit in JSON: path, format, head, config, parameters, tokenizer, other keys."""
    folder = locating.locate(path)
    checkpoint = formats.load(folder, later=True)
    return {
        "path": str(path),
        "format": formats.detect(folder),
        "head": checkpoint.head,
        "dtype": checkpoint.dtype,
        "parameter_count": checkpoint.count,
        "config": dataclasses.asdict(checkpoint.config),
        "extra": dict(checkpoint.extra),
        "pipeline": _pipeline(checkpoint),
        "parameters": _parameters(checkpoint),
        "tokenizer": _tokenizer(checkpoint),
        "files": sorted(checkpoint.files),
    }


def render(facts: dict[str, Any]) -> "RenderableType":
    """The facts of `inspect` as tables of rich."""
    from rich.console import Group
    from rich.table import Table

    top = Table.grid(padding=(0, 2))
    for key in ("path", "format", "head", "dtype"):
        top.add_row(key, text.for_terminal(facts[key]))
    top.add_row("parameters", f"{facts['parameter_count']:,}")
    for key, value in {**facts["config"], **facts["extra"], **(facts["pipeline"] or {})}.items():
        top.add_row(text.for_terminal(key), _shown(value))
    for key, value in (facts["tokenizer"] or {"tokenizer": "none"}).items():
        top.add_row(key if key == "tokenizer" else f"tokenizer {key}", _shown(value))
    parameters = Table("parameter", "shape", "dtype")
    parameters.add_column("count", justify="right")
    for row in facts["parameters"]:
        shape = " x ".join(map(str, row["shape"]))
        parameters.add_row(text.for_terminal(row["name"]), shape, row["dtype"], f"{row['count']:,}")
    return Group(top, parameters)


def _shown(value: Any) -> "Text":
    return text.for_terminal(text.clipped(str(value)))


def show(facts: dict[str, Any]) -> None:
    """Print the facts of `inspect` as tables."""
    import rich

    rich.print(render(facts))


def _parameters(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": "/".join(path),
            "shape": list(leaf.shape),
            "dtype": leaf.dtype.name,
            "count": math.prod(leaf.shape),
        }
        for path, leaf in names.flatten(checkpoint.params).items()
    ]


def _pipeline(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The modules after the model, each with the name of its class; None if there are none."""
    if checkpoint.pipeline is None:
        return None
    facts = dataclasses.asdict(checkpoint.pipeline)
    facts["steps"] = [
        {"type": type(step).__name__, **dataclasses.asdict(step)}
        for step in checkpoint.pipeline.steps
    ]
    return json.loads(json.dumps(facts))


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any] | None:
    tokenizer = checkpoint.tokenizer
    if tokenizer is None:
        return None
    facts: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    for role in ROLES:
        token_id = tokenizer.role_id(role)
        facts[role] = (
            None
            if token_id is None
            else {
                "id": token_id,
                "token": tokenizer.token(token_id),
            }
        )
    return facts
