"""Training of one small embedding model on meshes of virtual devices; run by `test_runs.py`."""

import json
import os
import signal
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import pairs

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.batches import TrainingBatches
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig


def main(folder: Path) -> None:
    """Train on every mesh of `meshes.json`, in a folder of its name; `dies` kills at a step."""
    if not (folder / "base").exists():
        pairs.model(folder / "base")
        pairs.write(folder / "train.jsonl", pairs.records(60, negatives=2))
        pairs.write(folder / "more.jsonl", pairs.records(40, negatives=0, seed=1))
        pairs.write(folder / "dev.jsonl", pairs.records(16, seed=2))
    for name, shape in json.loads((folder / "meshes.json").read_text()).items():
        dies = shape.pop("dies", None)
        if dies is not None:
            at = TrainingBatches.at

            def dying(self, step, at=at, dies=dies):
                if step == dies:
                    os.kill(os.getpid(), signal.SIGKILL)
                return at(self, step)

            TrainingBatches.at = dying
        config = RetrievalConfig(
            kind="embedding",
            model=str(folder / "base"),
            train=(str(folder / "train.jsonl"), str(folder / "more.jsonl")),
            validation=(str(folder / "dev.jsonl"),),
            output=str(folder / name),
            prompts={"query": "ba: "},
            include_prompt=False,
            projection_dims=16,
            loss=LossConfig(learn_scale=True),
            learning_rate=3e-3,
            epochs=2,
            batch_examples=16,
            microbatch_tokens=512,
            attention_dropout=0.1,
            save_every=5,
            eval_every=6,
            log_every=1,
            mesh=MeshShape(**shape),
        )
        jax.clear_caches()
        assert training.train(config) is not None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
