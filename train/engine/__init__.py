"""One trainer for every objective.

    class Contrastive(engine.Objective): ...
    outcome = engine.train(Contrastive(...), engine.TrainConfig(output="run", learning_rate=1e-4))

An `Objective` defines what is trained; the engine accumulates gradients, guards, clips, updates,
shards, saves, resumes, logs, evaluates and stops. Runs of several phases, or with programs that are
shared, are built from `Learner`, `Program` and `Phase`, and started by `run`.
"""

from pathlib import Path
from typing import Any

import jax

from modernbert_jax.io.typed_json import to_json

from .config import EngineConfig, TrainConfig
from .gradients import outputs_of
from .hyperparameters import rise_and_fall
from .loop import Outcome, Phase, RunStopped, run
from .objective import Batch, Evaluation, Microbatches, Objective, Sums, init_params
from .partition import Partition
from .program import Program
from .run_folder import RunFolder, only_writer, use_compile_cache
from .step import Learner

__all__ = [
    "Batch",
    "EngineConfig",
    "Evaluation",
    "Learner",
    "Microbatches",
    "Objective",
    "Outcome",
    "Partition",
    "Phase",
    "Program",
    "RunFolder",
    "RunStopped",
    "Sums",
    "TrainConfig",
    "init_params",
    "only_writer",
    "outputs_of",
    "run",
    "train",
    "use_compile_cache",
]


def train(objective: Objective, config: TrainConfig, params: Any = None) -> Outcome:
    """Run or resume the training of an objective in the folder `config.output`.

    Args:
        objective: what to train; one for the whole run.
        config: how to train it.
        params: parameters to start from; None draws them with `objective.init`.

    Returns:
        The run's outcome; `finished` is False if it was asked to stop, and has saved a checkpoint.

    Raises:
        UserError: the folder holds something else, or another process writes it.
        RunStopped: too many consecutive steps were skipped.
    """
    mesh = config.mesh.make()
    with jax.set_mesh(mesh):
        use_compile_cache()
        folder = RunFolder(Path(config.output), to_json(config), config.FREE)
        with folder.held():
            folder.claim()
            learner = Learner(objective, config, lambda h, t: rise_and_fall(h, t, config.schedule))
            phase = Phase.single(objective, Program(learner, mesh), config)
            return run([phase], config, folder, lambda: params)
