"""Runs of `retrieval_runs` on meshes of virtual devices; run by `test_runs.py`."""

import json
import os
import signal
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import retrieval_runs

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.batches import TrainingBatches


def main(folder: Path) -> None:
    """Train all of `meshes.json`, whose keys are RUN-NAME; `dies` kills at a step."""
    retrieval_runs.write(folder)
    for name, shape in json.loads((folder / "meshes.json").read_text()).items():
        dies = shape.pop("dies", None)
        if dies is not None:
            at = TrainingBatches.at

            def dying(self, step, at=at, dies=dies):
                if step == dies:
                    os.kill(os.getpid(), signal.SIGKILL)
                return at(self, step)

            TrainingBatches.at = dying
        run = name.partition("-")[0]
        config = retrieval_runs.config(folder, run, name, mesh=MeshShape(**shape))
        jax.clear_caches()
        assert training.train(config) is not None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
