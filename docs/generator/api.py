"""Pages of the Python API, from signatures and docstrings."""

import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import fields

PAGES = {
    "model": (
        "The model",
        "Checkpoints as objects, and the modules below them.",
        "ModernBert config.ModernBertConfig config.Runtime model.Encoder heads.MaskedLM heads.pool"
        " tokenizer.Tokenizer",
    ),
    "rows": (
        "Rows, attention and scores",
        "Packed rows, attention over key ranges, masking, devices and similarities.",
        "packing.Rows packing.pack packing.rows_from packing.layout attention.key_ranges"
        " attention.attention masking.mask_tokens sharding.MeshShape devices.expose_cores"
        " scoring.maxsim scoring.paired_maxsim scoring.top_k",
    ),
    "convert": (
        "Checkpoints",
        "Reading, writing, comparing and averaging checkpoints of every format.",
        "convert.Checkpoint convert.locate convert.load convert.save convert.convert"
        " convert.verify convert.average convert.cast convert.inspect convert.with_tokens"
        " convert.with_pipeline",
    ),
    "training": (
        "Training",
        "The engine and its objectives, tasks, and losses of retrieval.",
        "train.engine.Objective train.engine.Sums train.engine.Microbatches"
        " train.engine.Evaluation train.engine.train train.tasks.Task train.tasks.read"
        " train.tasks.split train.retrieval.losses.multiple_negatives_ranking"
        " train.retrieval.losses.gist train.retrieval.losses.distill_kl"
        " train.retrieval.losses.matryoshka",
    ),
    "serving": (
        "Serving",
        "The HTTP server as an application.",
        "serving.app.create_app serving.service.Service",
    ),
}
"""Title, introduction, and the objects below `modernbert_jax`, of each page."""

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)


def located(name: str) -> Any:
    """The object of a dotted name below the package."""
    module, _, attribute = f"modernbert_jax.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def signature(name: str, thing: Any) -> str:
    """A definition as in Python, one argument on each line if it is long."""
    try:
        line = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    line = re.sub(r"<(?:factory|object object|[\w.]+\.<locals>)[^>]*>", "...", line)
    line = re.sub(
        r"\b(?:collections\.abc|typing|numpy|pathlib|jax\._src\.\w+|modernbert_jax(?:\.\w+)*)\.",
        "",
        line,
    )
    if len(name + line) <= 88:
        return name + line
    arguments, depth, start = [], 0, 1
    for end, letter in enumerate(line):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            arguments.append(f"    {line[start:end].strip()},\n")
            start = end + 1
            if depth == 0:
                break
    return f"{name}(\n{''.join(arguments)}){line[start:]}"


def prose(text: str) -> str:
    """A docstring as Markdown: sections get a heading in bold, and their entries become a list."""
    begin, *rest = SECTION.split(text)
    parts = [begin.strip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        parts += [f"**{title}**", entries(inspect.cleandoc("\n" + body))]
    return "\n\n".join(parts)


def entries(body: str) -> str:
    """The entries of a section as a list; a body without names as it is."""
    items: list[str] = []
    for line in body.splitlines():
        if match := re.match(r"([*\w, ]+): (.*)", line):
            items.append(f"- `{match[1]}`: {match[2]}")
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return "\n".join(items)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods that a class and its bases in this package define, in order."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("modernbert_jax"):
            continue
        for name, thing in vars(base).items():
            thing = getattr(thing, "__func__", thing)
            if not name.startswith("_") and name not in seen and inspect.isfunction(thing):
                seen.add(name)
                yield name, thing


def entry(name: str, thing: Any, level: int = 2) -> Iterator[str]:
    """The parts of an object's description."""
    short = name.rpartition(".")[2]
    yield f"{'#' * level} `{name}`"
    if not isinstance(thing, types.ModuleType):
        yield f"```python\n{signature(short, thing)}\n```"
    yield prose(inspect.getdoc(thing) or "")
    if dataclasses.is_dataclass(thing) and isinstance(thing, type):
        yield fields.table(thing)
    if isinstance(thing, type):
        for method, function in members(thing):
            if inspect.getdoc(function):
                yield from entry(f"{short}.{method}", function, level + 1)


def page(name: str) -> str:
    """One page of the API."""
    title, introduction, names = PAGES[name]
    parts = [f"# {title}", f"{introduction} Names are below `modernbert_jax`."]
    for dotted in names.split():
        parts += entry(dotted, located(dotted))
    return "\n\n".join(parts) + "\n"
