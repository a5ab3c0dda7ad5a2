"""Sparse vectors and their gradients on virtual devices; run by `test_sparse.py`."""

import os

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}

import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import tiny

from modernbert_jax import splade
from modernbert_jax.heads import MaskedLM
from modernbert_jax.sharding import MeshShape, placed

CONFIG = tiny.config(num_hidden_layers=1, vocab_size=320)


def main() -> None:
    splade.BLOCK = 1  # several blocks
    rows = tiny.rows([[5, 3], [8], [2, 2, 4], [7]], 8)
    shapes = jax.eval_shape(MaskedLM(CONFIG).init, jax.random.key(0), *rows)["params"]
    params = tiny.randomised(shapes)
    module = splade.SparseEncoder(CONFIG)
    weights = np.random.default_rng(0).normal(size=(4, 3, 320)).astype(np.float32)

    def loss(params):
        vectors = module.apply({"params": params}, *rows, segments=3)
        return (vectors * weights).sum(), vectors

    compute = jax.value_and_grad(loss, has_aux=True)
    wanted = jax.tree.map(np.asarray, jax.jit(compute)(params))
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(wanted))
    for shape in (MeshShape(data=2), MeshShape(data=1, fsdp=2, context=2, tensor=2)):
        number = 2 if shape.data == 2 else 8
        mesh = shape.make(jax.devices()[:number])
        with jax.set_mesh(mesh):
            own = jax.jit(compute)(placed(params, mesh))
        for x, y in zip(*map(jax.tree.leaves, (own, wanted)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main()
