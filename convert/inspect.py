"""What a checkpoint is, for people and for programs."""

import dataclasses
import json
import math
import os
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import ROLES

from . import names
from .checkpoint import Checkpoint


def inspect(path: str | os.PathLike) -> dict[str, Any]:
    """Facts that fit in JSON: path, format, head, config, parameters, tokenizer, other keys."""
    from . import detect, load

    checkpoint = load(path, later=True)
    return {
        "path": str(path),
        "format": detect(path),
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


def render(facts: dict[str, Any]):
    """The facts as a rich renderable."""
    from rich.console import Group
    from rich.table import Table

    top = Table.grid(padding=(0, 2))
    for key in ("path", "format", "head", "dtype"):
        top.add_row(key, str(facts[key]))
    top.add_row("parameters", f"{facts['parameter_count']:,}")
    for key, value in {**facts["config"], **facts["extra"], **(facts["pipeline"] or {})}.items():
        top.add_row(key, str(value))
    for key, value in (facts["tokenizer"] or {"tokenizer": "none"}).items():
        top.add_row(key if key == "tokenizer" else f"tokenizer {key}", str(value))
    parameters = Table("parameter", "shape", "dtype")
    parameters.add_column("count", justify="right")
    for row in facts["parameters"]:
        shape = " x ".join(map(str, row["shape"]))
        parameters.add_row(row["name"], shape, row["dtype"], f"{row['count']:,}")
    return Group(top, parameters)


def show(facts: dict[str, Any]) -> None:
    """Prints the facts for people."""
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
    """What follows the model, every step with the name of its kind."""
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
        try:
            found = getattr(tokenizer, f"{role}_id")
        except UserError:
            found = None
        facts[role] = None if found is None else {"id": found, "token": tokenizer.token(found)}
    return facts
