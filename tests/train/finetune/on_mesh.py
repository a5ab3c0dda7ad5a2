"""Fine-tuning of one small run on meshes of virtual devices; run by `test_mesh.py`."""

import json
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import corpus
import labelled

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.finetune import training
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import TASKS


def main(folder: Path) -> None:
    """Train on every mesh of `meshes.json`, each in a folder of the mesh's name."""
    kind = "choice"  # its loss couples rows, and so devices
    if not (folder / "base").exists():
        labelled.checkpoint(folder / "base", corpus.make_tokenizer(), num_hidden_layers=2)
        labelled.write(folder / "train.jsonl", labelled.choice(64))
        labelled.write(folder / "dev.jsonl", labelled.choice(24, 1))
    for name, shape in json.loads((folder / "meshes.json").read_text()).items():
        config = FinetuneConfig(
            task=TASKS[kind](max_length=64),
            model=str(folder / "base"),
            train=str(folder / "train.jsonl"),
            validation=str(folder / "dev.jsonl"),
            output=str(folder / name),
            learning_rate=1e-3,
            epochs=2,
            batch_examples=16,
            log_every=1,
            mesh=MeshShape(**shape),
        )
        jax.clear_caches()
        assert training.finetune(config) is not None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
