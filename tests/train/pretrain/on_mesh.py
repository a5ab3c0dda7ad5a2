"""Pretraining of one small run on meshes of eight virtual devices; run by `test_mesh.py`."""

import dataclasses
import json
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import corpus

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.pretrain.run import pretrain


def main(folder: Path) -> None:
    """Train on every mesh of `meshes.json`, each in a folder of the mesh's name."""
    data = corpus.prepared(folder)
    for name, shape in json.loads((folder / "meshes.json").read_text()).items():
        mesh = MeshShape(**shape)
        config = corpus.run_config(folder, data, output=str(folder / name))
        model = dataclasses.replace(config.model, num_hidden_layers=4)  # one group is scanned
        config = corpus.even_config(config, rows=16, mesh=mesh, model=model)
        jax.clear_caches()
        assert pretrain(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
