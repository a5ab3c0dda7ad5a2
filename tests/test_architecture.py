"""Who may import whom, and that importing computes nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "modernbert_jax": "library",
    "convert": "convert",
    "train": "train",
    "configs": "configs",
}
ROOF = {"modernbert_jax.pretrained": {"convert"}, "modernbert_jax.cli": set(FOLDERS) - {"library"}}
"""The modules of the library that look down, and on what."""

ALLOWED = {
    "library": {"library"},
    "convert": {"library", "convert"},
    "train": {"library", "convert", "train", "configs"},
    "configs": {"library", "convert", "train", "configs"},
}


def sources() -> dict[str, Path]:
    """Every module of the distribution, by the name under which it is imported."""
    found = {}
    for folder in FOLDERS:
        prefix = "modernbert_jax" if folder == "modernbert_jax" else f"modernbert_jax.{folder}"
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((prefix, *parts))] = path
    return found


def part(module: str) -> str:
    """The part of the house that a module belongs to."""
    second = [*module.split("."), ""][1]
    return second if second in ("convert", "train", "configs") else "library"


def imports(module: str, path: Path) -> set[str]:
    """All modules of ours that a file names in an import, also inside functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    known, found = sources(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {m for m in members if m in known} or {base}
    return {name for name in found if name.split(".")[0] == "modernbert_jax"}


def roof(module: str) -> str | None:
    """The part of the roof that a module belongs to, if any."""
    return next((name for name in ROOF if f"{module}.".startswith(f"{name}.")), None)


def forbidden(module: str, path: Path) -> set[str]:
    own, above = part(module), roof(module)
    allowed = ALLOWED[own] | (ROOF[above] if above else set())
    # The package's own `__getattr__` hands out the roof's face when it is asked for.
    lazy = {"modernbert_jax.pretrained"} if module == "modernbert_jax" else set()
    found = {name for name in imports(module, path) if part(name) not in allowed} - lazy
    if own == "library" and above is None and module != "modernbert_jax":
        found |= {name for name in imports(module, path) if roof(name)}
    if own in ("convert", "train", "configs"):
        found |= {name for name in imports(module, path) if roof(name) == "modernbert_jax.cli"}
    return found


def test_there_is_something_to_check():
    assert {"modernbert_jax.model", "modernbert_jax.convert.names"} <= set(sources())
    assert "modernbert_jax.model" in imports(
        "modernbert_jax.heads", ROOT / "modernbert_jax" / "heads.py"
    )


@pytest.mark.parametrize("module", sources())
def test_arrows_point_down(module):
    assert not forbidden(module, sources()[module])


def test_a_wrong_arrow_would_be_seen(tmp_path):
    for name, line in {
        "modernbert_jax.heads": "from modernbert_jax.train import loss",
        "modernbert_jax.rope": "def f():\n    import modernbert_jax.convert.names",
        "modernbert_jax.convert.names": "from modernbert_jax import train",
        "modernbert_jax.convert.tensors": "from ..train import loss",
        "modernbert_jax.pretrained": "import modernbert_jax.train.loss",
        "modernbert_jax.packing": "from modernbert_jax.pretrained import ModernBert",
        "modernbert_jax.model": "from modernbert_jax.cli import output",
        "modernbert_jax.train.loss": "from modernbert_jax import cli",
    }.items():
        (tmp_path / "wrong.py").write_text(line)
        assert forbidden(name, tmp_path / "wrong.py"), line


def test_importing_computes_nothing():
    """With a platform that does not exist, the first computation of jax would raise."""
    modules = [name for name in sources() if not name.endswith("__main__")]
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
