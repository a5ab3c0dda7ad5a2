"""Grid of a sweep: the hyperparameter values that its runs combine."""

import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import NonNegative, Positive, Seed

from ..examples.config import Epochs
from .config import FinetuneConfig


class Setting(NamedTuple):
    """Hyperparameters of runs that differ only in their seed."""

    learning_rate: float
    """Peak learning rate."""
    weight_decay: float
    """Weight decay; its meaning depends on the optimizer."""
    epochs: float
    """Number of passes over the training examples."""

    def __str__(self) -> str:
        return f"lr{self.learning_rate:g}-wd{self.weight_decay:g}-ep{self.epochs:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Values whose combinations are run; an empty field uses the configuration's own value."""

    learning_rate: tuple[Positive, ...] = ()
    """Peak learning rates."""
    weight_decay: tuple[NonNegative, ...] = ()
    """Weight decays."""
    epochs: tuple[Epochs, ...] = ()
    """Numbers of epochs."""
    seed: tuple[Seed, ...] = ()
    """Seeds, over which means and deviations are computed."""

    def __post_init__(self):
        ranges.check(self, "grid.")
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            repeated = sorted({v for v in values if values.count(v) > 1})
            if repeated:
                raise UserError(f"grid.{field.name} holds {repeated[0]:g} more than once")

    def runs(self, config: FinetuneConfig) -> list[list[FinetuneConfig]]:
        """Return the configuration of every run, by setting and then by seed.

        Every run gets its own folder within the sweep's.

        Raises:
            UserError: values that are out of range.
        """
        axes = [getattr(self, name) or (getattr(config, name),) for name in Setting._fields]
        settings = []
        for values in itertools.product(*axes):
            setting = Setting(*map(float, values))
            settings.append(
                [
                    dataclasses.replace(
                        config,
                        output=str(Path(config.output) / "runs" / f"{setting}-seed{seed}"),
                        seed=seed,
                        **setting._asdict(),
                    )
                    for seed in self.seed or (config.seed,)
                ]
            )
        return settings
