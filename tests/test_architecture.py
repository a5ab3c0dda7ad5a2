"""The rooms of the house: who may import whom, without circles; and imports compute nothing."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("modernbert_jax", "convert", "train", "configs")

ROOMS = {
    "base": (
        *(
            "errors",
            "architecture",
            "config",
            "hf_config",
            "sharding",
            "devices",
            "platform",
            "implementations",
            "rope",
            "ranges",
        ),
        *("packing", "quantization", "masking", "initializers"),
    ),
    "io": ("io",),
    "attention": ("attention",),
    "model": (
        *("model", "heads", "pipeline", "embedder", "products", "norms", "residual"),
        *("alignment", "splade", "late_interaction"),
        *("tokenizer", "tokenizer_backend", "tokenizer_settings"),
    ),
    "scoring": ("scoring",),
    "inference": ("inference",),
    "convert": ("convert",),
    "exporting": ("exporting",),
    "pretrained": (
        *("pretrained", "text_encoding", "language_modelling", "classifying", "sparse_encoding"),
        *("saving", "encode_names", "predictions"),
    ),
    "serving": ("serving",),
    "recipe": ("train.optimizer", "train.schedule", "train.tiling"),
    "engine": ("train.engine",),
    "loss": ("train.loss",),
    "rows": ("train.rows",),
    "corpus": ("train.corpus",),
    "tasks": ("train.tasks",),
    "pretrain": ("train.pretrain", "train.config"),
    "examples": ("train.examples",),
    "finetune": ("train.finetune",),
    "retrieval": ("train.retrieval",),
    "embed": ("train.embed",),
    "configs": ("configs",),
    "plan": ("train.plan",),
    "report": ("train.report",),
    "runs": ("train.quickstart", "train.intermediate"),
    "bench": ("train.bench",),
    "cli": ("cli", "__main__"),
}
"""Every room, and the modules or packages in it, without `modernbert_jax`."""

LIBRARY = ("base", "io", "attention", "model", "scoring")
ARROWS = {
    "base": (),
    "io": ("base",),
    "attention": ("base", "io"),
    "model": ("base", "io", "attention"),
    "scoring": ("base",),
    "inference": ("base", "attention", "model"),
    "convert": ("base", "io", "model"),
    "exporting": (*LIBRARY, "inference", "convert"),
    "pretrained": (*LIBRARY, "inference", "convert", "finetune", "tasks"),
    "serving": (*LIBRARY, "inference", "pretrained", "tasks"),
    "recipe": ("base", "model", "convert"),
    "engine": ("base", "io", "model", "convert", "recipe"),
    "loss": ("base", "model", "engine"),
    "rows": ("base", "io", "model"),
    "corpus": ("base", "io", "model", "rows"),
    "tasks": ("base", "io", "model", "corpus"),
    "pretrain": (*LIBRARY, "convert", "recipe", "engine", "loss", "rows"),
    "examples": (*LIBRARY, "inference", "convert", "engine"),
    "finetune": (*LIBRARY, "inference", "convert", "recipe", "engine", "examples", "tasks"),
    "retrieval": (
        *(*LIBRARY, "inference", "convert", "recipe", "engine", "examples"),
        *("rows", "tasks", "corpus"),
    ),
    "embed": (*LIBRARY, "inference", "convert", "corpus", "tasks", "retrieval"),
    "configs": ("base", "io", "pretrain", "finetune", "retrieval", "tasks"),
    "plan": (*LIBRARY, "recipe", "engine", "loss", "pretrain", "configs"),
    "report": ("base", "io", "engine"),
    "runs": (
        *(
            *LIBRARY,
            "pretrained",
            "engine",
            "examples",
            "rows",
            "corpus",
            "pretrain",
            "finetune",
            "configs",
        ),
        "report",
    ),
}
"""The rooms that each room may import; `bench` and `cli` look at all."""


def sources() -> dict[str, Path]:
    """Every module of the distribution, by the name under which it is imported."""
    modules = {}
    for folder in FOLDERS:
        prefix = "modernbert_jax" if folder == "modernbert_jax" else f"modernbert_jax.{folder}"
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            modules[".".join((prefix, *parts))] = path
    return modules


def room(module: str) -> str | None:
    """The room of a module; None for packages that only hold rooms."""
    name = f"{module.removeprefix('modernbert_jax').removeprefix('.')}."
    for room_, contents in ROOMS.items():
        if any(name.startswith(f"{entry}.") for entry in contents):
            return room_
    return None


def imports(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """All modules of ours that a file names in an import, also inside functions and for types."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            members = {f"{base}.{alias.name}" for alias in node.names}
            names |= {m for m in members if m in known} or {base}
    return {name for name in names if name.split(".")[0] == "modernbert_jax"}


def forbidden(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """Imports of a module that its room does not allow."""
    own = room(module)
    others = {name for name in imports(module, path, known) if room(name) not in (own, None)}
    if own == "cli" or own is None:
        return set()
    if own == "bench":
        return {name for name in others if room(name) == "cli"}
    return {name for name in others if room(name) not in ARROWS[own]}


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle in a graph, or nothing."""
    state: dict[str, int] = {}
    way: list[str] = []

    def visit(node: str) -> list[str]:
        state[node] = 1
        way.append(node)
        for other in arrows.get(node, ()):
            if state.get(other) == 1:
                return [*way[way.index(other) :], other]
            if other not in state and (cycle := visit(other)):
                return cycle
        state[node] = 2
        way.pop()
        return []

    return next((nodes for node in arrows if node not in state and (nodes := visit(node))), [])


KNOWN = sources()


def test_every_module_has_a_room():
    packages = {"modernbert_jax", "modernbert_jax.train"}
    assert {module for module in KNOWN if room(module) is None} == packages
    assert room("modernbert_jax.model") == "model"
    assert room("modernbert_jax.train.engine.loop") == "engine"


def test_rooms_have_no_circle():
    assert not circle(ARROWS)
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]


def test_modules_have_no_circle():
    """Imports inside functions and those for types count too."""
    assert not circle(
        {module: imports(module, path, KNOWN) - {module} for module, path in KNOWN.items()}
    )


@pytest.mark.parametrize("module", KNOWN)
def test_arrows_go_one_way(module):
    assert not forbidden(module, KNOWN[module], KNOWN)


def test_a_wrong_arrow_would_be_seen(tmp_path):
    for name, line in {
        "modernbert_jax.heads": "from modernbert_jax.train import loss",
        "modernbert_jax.rope": "def f():\n    import modernbert_jax.convert.names",
        "modernbert_jax.convert.names": "from modernbert_jax.train import loss",
        "modernbert_jax.convert.tensors": "from ..train import loss",
        "modernbert_jax.pretrained": "import modernbert_jax.train.loss",
        "modernbert_jax.packing": "from modernbert_jax.pretrained import ModernBert",
        "modernbert_jax.serving.app": "from modernbert_jax.train import loss",
        "modernbert_jax.train.engine.loop": "from ..pretrain import config",
        "modernbert_jax.train.rows.batches": "from ..corpus import pool",
        "modernbert_jax.train.pretrain.run": "from ..finetune import run",
        "modernbert_jax.train.retrieval.config": "from ..finetune import config",
        "modernbert_jax.train.bench.data": "from modernbert_jax import cli",
    }.items():
        (tmp_path / "wrong.py").write_text(line)
        assert forbidden(name, tmp_path / "wrong.py", KNOWN), line


def test_importing_computes_nothing():
    """The first computation of jax would raise, because the platform does not exist."""
    modules = [name for name in KNOWN if not name.endswith("__main__")]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    check = subprocess.run(
        [sys.executable, "-c", code, *modules],
        env=os.environ | {"JAX_PLATFORMS": "none_such"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert check.returncode == 0, check.stderr
    proof = subprocess.run(
        [sys.executable, "-c", "import jax.numpy as jnp; jnp.zeros(1)"],
        env=os.environ | {"JAX_PLATFORMS": "none_such"},
        capture_output=True,
        text=True,
    )
    assert proof.returncode != 0
