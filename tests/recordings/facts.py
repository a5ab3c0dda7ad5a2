"""Exact facts of files: numbers as hexadecimal floats, everything else as SHA-256."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors

TIMES = (
    "data_wait_seconds",
    "device_memory_bytes",
    "examples_per_second",
    "mfu",
    "seconds",
    "step_seconds_max",
    "step_seconds_p50",
    "step_seconds_p90",
    "tokens_per_second",
)
TIMES_PREFIX = "seconds_"
"""Keys of metrics and results that depend on time or on the machine's memory; left out."""


def is_timed(key: str) -> bool:
    """Whether a value depends on time."""
    return key in TIMES or key.startswith(TIMES_PREFIX)


def exact(value: Any) -> Any:
    """JSON with floats in hexadecimal and without values that depend on time."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: exact(x) for key, x in value.items() if not is_timed(key)}
    return [exact(x) for x in value] if isinstance(value, list) else value


def read_json(path: Path) -> Any:
    """The exact content of a JSON file; None where there is no file."""
    return exact(json.loads(path.read_text())) if path.is_file() else None


def read_lines(path: Path) -> list[Any] | None:
    """The exact content of a file of JSON lines; None where there is no file."""
    if not path.is_file():
        return None
    return [exact(json.loads(line)) for line in path.read_text().splitlines()]


def timed(path: Path) -> list[str]:
    """Keys that depend on time in a file of JSON lines; their values are no facts."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return sorted({key for line in lines for key in json.loads(line) if is_timed(key)})


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def tensors(path: Path) -> dict[str, str] | None:
    """Dtype, shape and hash of every tensor of a safetensors file; None where there is no file."""
    if not path.is_file():
        return None
    tensors = safetensors.deserialize(path.read_bytes())
    return {
        name: f"{tensor['dtype']} {tensor['shape']} {sha256(bytes(tensor['data']))}"
        for name, tensor in sorted(tensors, key=lambda item: item[0])
    }


def hashes(folder: Path, without: Iterable[str] = ()) -> dict[str, str]:
    """Hash of every file in a folder, but for those of some names."""
    return {
        name: sha256((folder / name).read_bytes())
        for name in _files(folder)
        if Path(name).name not in without
    }


def archive(path: Path, without: Iterable[str] = ()) -> dict[str, str] | None:
    """Hash of every member of a zip file, but for some; None where there is no file."""
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as file:
        return {name: sha256(file.read(name)) for name in file.namelist() if name not in without}


def names(folder: Path) -> list[str]:
    """Names of all files; a checkpoint is only its folder, and event files are all the same."""
    shown = set()
    for name in _files(folder):
        name = re.sub(r"(checkpoints/[^/]+)/.*", r"\1/", name)
        shown.add(re.sub(r"events\.out\.tfevents.*", "events.out.tfevents", name))
    return sorted(shown)


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def model(folder: Path) -> dict[str, Any]:
    """An exported Hugging Face directory. The text of its card (`README.md`) is left out."""
    return {
        "weights": tensors(folder / "model.safetensors"),
        "config": read_json(folder / "config.json"),
        "task": read_json(folder / "task.json"),
        "files": hashes(folder, ("README.md", "model.safetensors", "config.json", "task.json")),
    }


def run(folder: Path) -> dict[str, Any]:
    """The folder of a pretraining or fine-tuning run."""
    metrics = folder / "metrics.jsonl"
    return {
        "rows": read_lines(metrics),
        "timed": timed(metrics),
        "config": read_json(folder / "config.json"),
        "result": read_json(folder / "result.json"),
        "export": model(folder / "export"),
        "predictions": hashes(folder / "predictions"),
        "adapter": {
            "weights": tensors(folder / "adapter" / "adapter_model.safetensors"),
            "config": read_json(folder / "adapter" / "adapter_config.json"),
        },
        "tokenizer": hashes(folder / "tokenizer"),
        "names": names(folder),
    }


def printed(stdout: str) -> Any:
    """The exact JSON that a command printed; its text where it printed something else."""
    try:
        return exact(json.loads(stdout))
    except ValueError:
        return stdout
