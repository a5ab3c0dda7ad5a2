"""Training of the contrastive objective in a folder; `test_coupled.py` runs it as a program."""

import json
import os
import signal
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import tiny
from contrastive import Contrastive

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train import engine


class Dying(Contrastive):
    """The objective, killing its process before a step."""

    dies_at = -1

    def batch(self, step):
        if step == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step)


def main(folder: str, devices: int = 1, mesh: dict | None = None, dies_at: int = -1) -> None:
    """Run twelve steps, with checkpoints at 5, 10 and 12."""
    jax.config.update("jax_num_cpu_devices", devices)
    Dying.dies_at = dies_at
    config = tiny.config(num_hidden_layers=1, attention_dropout=0.2, embedding_dropout=0.1)
    shape = MeshShape(**{"data": 1} | (mesh or {}))
    settings = {"learning_rate": 3e-2, "warmup": 0.0, "log_every": 1, "save_every": 5}
    objective = Dying(config, rows=16, steps=12)
    engine.train(objective, engine.TrainConfig(output=folder, mesh=shape, **settings))


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
