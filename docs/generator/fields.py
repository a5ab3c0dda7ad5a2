"""Tables of the fields of the configurations, from the dataclasses and their docstrings."""

import ast
import dataclasses
import importlib
import inspect
import textwrap
from typing import Any

GROUPS = {
    "Architecture and computation": ("config.ModernBertConfig", "config.Runtime"),
    "Every run": ("train.engine.TrainConfig", "train.engine.lora.Lora", "sharding.MeshShape"),
    "Pretraining": ("train.config.PretrainConfig", "train.config.Stage"),
    "Fine-tuning": ("train.finetune.config.FinetuneConfig",),
    "Retrieval": ("train.retrieval.config.RetrievalConfig", "train.retrieval.losses.LossConfig"),
}
"""Dataclasses below `modernbert_jax`, by the heading of the page under which they stand."""


def docstrings(kind: type) -> dict[str, str]:
    """The docstring of each field of a class, those of its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                value = text.value if isinstance(text, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    texts[field.target.id] = inspect.cleandoc(value.value)
    return texts


def default(field: "dataclasses.Field[Any]") -> str:
    """The default of a field as Python; "required" where there is none."""
    value = field.default
    if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"


def cell(text: str) -> str:
    """A text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(kind: type) -> str:
    """The fields of a dataclass as a Markdown table."""
    texts = docstrings(kind)
    lines = ["| field | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        if not field.name.startswith("_"):
            meaning = cell(texts.get(field.name, ""))
            lines.append(f"| `{field.name}` | {cell(default(field))} | {meaning} |")
    return "\n".join(lines)


def page() -> str:
    """The page of all configurations."""
    parts = [
        "# Configuration fields",
        "This page is made from the dataclasses. On the command line a field is an option:"
        " `stages[0].peak_learning_rate` is `--stages.0.peak-learning-rate`. Presets are named"
        " configurations; a Python file with `config()` or a run's `config.json` is one, too.",
    ]
    for heading, names in GROUPS.items():
        parts.append(f"## {heading}")
        for name in names:
            module, _, kind = name.rpartition(".")
            found = getattr(importlib.import_module(f"modernbert_jax.{module}"), kind)
            first = (inspect.getdoc(found) or "").split("\n\n")[0]
            parts += [f"### `{kind}`", " ".join(first.split()), table(found)]
    return "\n\n".join(parts) + "\n"
