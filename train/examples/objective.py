"""What the objectives of all runs over examples share: their batches, and facts of their rows."""

import abc
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Protocol

import jax
from jax.sharding import Mesh

from modernbert_jax.config import ModernBertConfig

from .. import engine
from .config import ExamplesConfig


class Batches(Protocol):
    """The batches of a run."""

    def at(self, step: int) -> tuple[Any, int]:
        """Return the batch of a step, counted from 0, and its number of examples.

        The batch has packed `rows` [A, B, T], and the number of microbatches in use, `used`.
        """


class ExamplesObjective(engine.Objective):
    """An objective whose batches are examples in microbatches of packed rows."""

    predicted: ClassVar[float] = 0.0
    """Share of the tokens that pass through the masked-LM head, for counting FLOPs."""
    config: ExamplesConfig
    model: ModernBertConfig
    """The architecture as it is exported."""
    training: Batches | None
    """Batches of a run; None compiles or evaluates only."""
    notes: Mapping[str, Any]
    """Facts of the model for its checkpoints."""

    @property
    def independent_rows(self) -> bool:
        return True

    @staticmethod
    @abc.abstractmethod
    def place(batch: Any, mesh: Mesh) -> Any:
        """Shard a batch over the devices of all processes; each process holds the whole batch."""

    def batch(self, step: int) -> Any:
        return self.batches.at(step)[0]

    def stream(self, step: int) -> Generator[engine.Batch]:
        mesh = jax.sharding.get_mesh()
        while True:
            batch, examples = self.batches.at(step)
            capacity = int(batch.used) * batch.rows.token_ids[0].size
            counts = {"examples": examples, "capacity": capacity}
            yield engine.Batch(self.place(batch, mesh), counts)
            step += 1

    def describe(self, batch: engine.Batch) -> str:
        number, rows, length = batch.arrays.rows.token_ids.shape
        return f"{self.name}, up to {number:,} microbatches of {rows:,} x {length:,} tokens"

    def metadata(self, step: int) -> dict[str, Any]:
        return dict(self.notes)

    def flops_per_token(self, length: float) -> float | None:
        partial = self.config.freeze or self.config.freeze_layers or self.config.lora.rank
        return None if partial else self.model.flops_per_token(length, self.predicted)

    @property
    def batches(self) -> Any:
        """Batches of the run. Raises `ValueError` if there are none."""
        if self.training is None:
            raise ValueError("this objective has no examples to train on")
        return self.training
