"""The wheel: all of the library, nothing else, and it works from where it is installed."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("modernbert_jax", "convert", "train", "configs")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*command, **kwargs) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def has_setuptools(least: int = 77) -> bool:
    """Whether this environment can build by itself; `least` stands in `pyproject.toml` too."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= least
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the sources stay clean."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in FOLDERS:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    isolation = ["--no-build-isolation"] if has_setuptools() else []  # spares a download
    run(*PIP, "wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(source))
    (path,) = folder.glob("*.whl")
    return path


def modules() -> list[str]:
    """Every module of the sources, by the name under which it must be importable."""
    names = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "modernbert_jax" else ("modernbert_jax", *parts)
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"modernbert_jax"}
    tops = {name.split("/")[0] for name in names} - {"modernbert_jax"}
    assert len(tops) == 1 and next(iter(tops)).endswith(".dist-info")
    held = {name for name in names if name.endswith(".py")}
    wanted = {name.replace(".", "/") for name in modules()}
    assert {name.removesuffix(".py").removesuffix("/__init__") for name in held} == wanted
    assert "modernbert_jax/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)


def test_the_program_is_an_entry_point(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "modernbert-jax = modernbert_jax.cli:main" in archive.read(entry).decode()


def test_every_module_is_importable_where_it_is_installed(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(*PIP, "install", "--no-deps", "--target", str(site), str(wheel))
    code = f"""
import importlib, sys
sys.path[:] = [{str(site)!r}] + [p for p in sys.path if p != {str(ROOT)!r}]
sys.meta_path[:] = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(site)!r}), module.__file__
"""
    names = [name for name in modules() if not name.endswith("__main__")]
    run(sys.executable, "-c", code, *names, cwd=elsewhere)


@pytest.mark.parametrize("installed", (True, False))
def test_a_checkout_is_imported_whatever_is_installed(wheel, tmp_path, installed):
    """Python started in a clone finds all folders; what is installed serves everywhere else."""
    site, clone = tmp_path / "site", tmp_path / "clone"
    clone.mkdir()
    for name in FOLDERS:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, clone / name, ignore=skip)
    shutil.copyfile(ROOT / "pyproject.toml", clone / "pyproject.toml")
    if installed:
        run(*PIP, "install", "--no-deps", "--target", str(site), str(wheel))
    code = f"""
import sys
sys.path[:] = ["", {str(site)!r}] + [p for p in sys.path[1:] if p != {str(ROOT)!r}]
sys.meta_path[:] = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]
import modernbert_jax
for name in ("sharding", "late_interaction", "packing", "masking", "attention", "convert", "train"):
    assert name in dir(modernbert_jax), name
    module = getattr(modernbert_jax, name)
    assert module.__name__ == "modernbert_jax." + name
    assert module.__file__.startswith({str(clone)!r}), module.__file__
assert modernbert_jax.attention.key_ranges and modernbert_jax.__version__
import modernbert_jax.train.loss
assert not hasattr(modernbert_jax, "no_such_module")
"""
    run(sys.executable, "-c", code, cwd=clone)


def test_names_are_there_after_a_plain_import():
    code = """
import modernbert_jax
public = {"ModernBert", "ModernBertConfig", "Runtime", "UserError", "sharding", "late_interaction"}
assert public <= set(dir(modernbert_jax))
assert modernbert_jax.sharding.MeshShape and modernbert_jax.late_interaction.maxsim
assert modernbert_jax.ModernBert.from_pretrained
try:
    modernbert_jax.nothing
except AttributeError as error:
    print(error)
"""
    assert "has no attribute 'nothing'" in run(sys.executable, "-c", code)
