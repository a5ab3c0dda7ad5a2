"""Recorded runs of `convert`, `verify`, `inspect`, `average`, `fill-mask`, and of `ModernBert`."""

import json
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


def record(program: Program) -> dict[str, Any]:
    """Hashes of converted checkpoints, what is printed about them, and what the model computes."""
    (program.folder / "converted").mkdir()
    calls = {f"convert to {to}": ["convert", a, to, "--format", f] for a, to, f in _CHAIN}
    calls |= {
        "convert to bfloat16": ["convert", "model", "converted/bf16", "--dtype", "bfloat16"],
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
    outcomes["files"] = facts.hashes(folder)
    outcomes["weights"] = {
        name: facts.tensors(folder / name / "model.safetensors")
        for name in ("hf", "back", "averaged", "bf16")
    }
    python = program.run_python(_PYTHON, "model")
    outcomes["python"] = {
        "exit": python.code,
        "arrays": json.loads(python.stdout) if python.code == 0 else None,
    }
    return outcomes
