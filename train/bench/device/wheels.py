"""Wheels for a machine without network: what it lacks beside jax, flax and PyTorch.

`make wheels` collects them for a Python version, with this package from the last commit, and says
the two commands that install and run them there.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from modernbert_jax.errors import UserError

PACKAGES = (
    "tyro",
    "docstring-parser",
    "typeguard",
    "shtab",
    "tensorboardX",
    "grain",
    "array-record",
    "portpicker",
    "zstandard",
    "rich",
    "markdown-it-py",
    "mdurl",
    "pygments",
    "tokenizers",
)
"""What our requirements and theirs name and such a machine may lack. All others come with jax,
flax, optax, orbax and transformers."""

PLATFORMS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
)

LIMIT = 40e6
"""Bytes of all wheels together."""

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

ROOT = Path(__file__).parents[3]


def collect(folder: Path, python: str, machine: str = "x86_64") -> list[Path]:
    """Downloads the wheels and builds our own into a folder, which is made.

    Args:
        folder: may hold wheels of an earlier call, which are replaced.
        python: version of the machine's Python, such as "3.12".
        machine: of the machine, as `uname -m` says.

    Raises:
        UserError: the version makes no sense, this is no checkout, or a wheel cannot be had.
    """
    if not re.fullmatch(r"3\.\d+", python):
        raise UserError(f"python is {python!r}; give a version such as 3.12")
    if not (ROOT / ".git").exists():
        raise UserError(f"{ROOT}: no checkout; run make wheels in one")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    platforms = [f"--platform={name}_{machine}" for name in PLATFORMS]
    for package in PACKAGES:
        _pip(
            *("download", "--no-deps", "--only-binary=:all:", "--implementation=cp"),
            *(f"--python-version={python}", *platforms, f"--dest={folder}"),
            _pinned(package),
        )
    _own(folder)
    wheels = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    if size > LIMIT:
        raise UserError(f"{folder}: {size / 1e6:.1f} MB; it must stay below {LIMIT / 1e6:.0f} MB")
    return wheels


def commands(folder: Path) -> tuple[str, str]:
    """What installs the wheels on the machine, and what runs there then."""
    return (
        f"python3 -m pip install --no-index --no-deps {folder.name}/*.whl",
        "python3 -m modernbert_jax.train.bench.device --output device.json",
    )


def main(arguments: list[str] | None = None) -> int:
    """Collects wheels; returns the exit code."""
    parser = argparse.ArgumentParser(description="Collects wheels for a machine without network.")
    parser.add_argument("--python", default="3.12", metavar="VERSION", help="its Python version")
    parser.add_argument("--output", type=Path, default=Path("wheels"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        wheels = collect(options.output, options.python)
    except UserError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 2
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(
        f"{options.output}: {len(wheels)} wheels for Python {options.python}, {size / 1e6:.1f} MB"
    )
    print("Copy the folder to the machine; beside it, install and run:")
    print(*commands(options.output), sep="\n")
    return 0


def _own(folder: Path) -> None:
    """Builds our wheel from the last commit; git notes the commit in it."""
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "source.tar"
        _run("git", "-C", str(ROOT), "archive", f"--output={archive}", "HEAD")
        source = Path(place) / "source"
        source.mkdir()
        _run("tar", "-xf", str(archive), "-C", str(source))
        _pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(source))


def _pinned(package: str) -> str:
    """The version that is installed here, or the newest where none is."""
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def _pip(*arguments: str) -> None:
    _run(*PIP, *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [x for x in done.stderr.splitlines() if "ERROR" in x or "error" in x]
        reason = (lines or done.stderr.splitlines() or ["no message"])[-1]
        raise UserError(f"{' '.join(command[:6])} ...: {reason}")


if __name__ == "__main__":
    sys.exit(main())
