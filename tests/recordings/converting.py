"""Recorded runs of `convert`, `verify`, `inspect`, `average`, `fill-mask`, and of `ModernBert`."""

import json
from pathlib import Path
from typing import Any

import facts
from program import Program

_PYTHON = """
import hashlib, json, sys
import numpy as np
from modernbert_jax import ModernBert

def fact(array):
    array = np.ascontiguousarray(array)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"

texts = ["ba be ce", "difo ka le mi", "nopu " * 60]
outputs = {}
for dtype in ("float32", "bfloat16"):
    bert = ModernBert.from_pretrained(sys.argv[1], dtype=dtype)
    ids = [[3, 5, 7, 11], list(range(2, 90)), [8]]
    outputs[dtype] = {
        "encode": fact(bert.encode(texts)),
        "encode cls": fact(bert.encode(texts, pooling="cls", normalize=True)),
        "hidden": [fact(x) for x in bert.hidden(ids)],
        "mlm_logits": [fact(x) for x in bert.mlm_logits(ids)],
        "fill_mask": repr(bert.fill_mask("ba [MASK] ce [MASK]", top_k=3)),
    }
print(json.dumps(outputs))
"""

_CHAIN = (
    ("model", "converted/jax", "jax"),
    ("converted/jax", "converted/hf", "hf"),
    ("converted/hf", "converted/flexbert.pt", "flexbert"),
    ("converted/flexbert.pt", "converted/back", "hf"),
)
"""Source, destination and format of conversions, one after another."""


_DIRECTORIES = ("hf", "back", "averaged", "bf16-hf")
"""Those in the format of Hugging Face."""


def record(program: Program) -> dict[str, Any]:
    """Hashes of converted checkpoints, what is printed about them, and what the model computes.

    `data.pkl` of a FlexBERT file is left out: it holds the name of a temporary file.
    """
    (program.folder / "converted").mkdir()
    calls = {f"convert to {to}": ["convert", a, to, "--format", f] for a, to, f in _CHAIN}
    calls |= {
        "convert to bfloat16": ["convert", "model", "converted/bf16", "--dtype", "bfloat16"],
        "convert from bfloat16": ["convert", "converted/bf16", "converted/bf16-hf"],
        "verify": ["verify", "model", "converted/flexbert.pt"],
        "verify unequal": ["verify", "model", "converted/bf16"],
        "inspect": ["inspect", "model", "--json"],
        "inspect flexbert": ["inspect", "converted/flexbert.pt", "--json"],
        "average": ["average", "model", "converted/hf", "--output", "converted/averaged"],
        "fill-mask": ["fill-mask", "ba [MASK] ce [MASK]", "--model", "model"],
    }
    results = program.run_together([*calls.values()])
    outcomes: dict[str, Any] = {
        name: {"exit": result.code, "stdout": facts.printed(result.stdout)}
        for name, result in zip(calls, results, strict=True)
    }
    folder = program.folder / "converted"
    outcomes["files"] = {name: facts.hashes(folder / name) for name in _DIRECTORIES}
    outcomes["files"]["flexbert.pt"] = facts.archive(folder / "flexbert.pt", ("archive/data.pkl",))
    outcomes["jax"] = {name: _native(folder / name) for name in ("jax", "bf16")}
    outcomes["weights"] = {
        name: facts.tensors(folder / name / "model.safetensors") for name in _DIRECTORIES
    }
    python = program.run_python(_PYTHON, "model")
    outcomes["python"] = {
        "exit": python.code,
        "arrays": json.loads(python.stdout) if python.code == 0 else None,
    }
    return outcomes


def _native(folder: Path) -> dict[str, Any]:
    """A directory of the format `jax`, but for its arrays, whose files have random names.

    The arrays are compared in what is converted from it.
    """
    marker = facts.read_json(folder / "modernbert_jax.json") or {}
    return {
        "files": sorted(path.name for path in folder.glob("*")),
        "config": facts.read_json(folder / "config.json"),
        "marker": {key: value for key, value in marker.items() if key != "files"},
    }
