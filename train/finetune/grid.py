"""What the runs of a sweep differ in."""

import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

from modernbert_jax.errors import UserError

from .config import FinetuneConfig


class Setting(NamedTuple):
    """What runs differ in beside their seed."""

    learning_rate: float
    weight_decay: float
    epochs: float

    def __str__(self) -> str:
        return f"lr{self.learning_rate:g}-wd{self.weight_decay:g}-ep{self.epochs:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Values of which every combination is run; none given is the configuration's own."""

    learning_rate: tuple[float, ...] = ()
    """The highest of the schedule."""
    weight_decay: tuple[float, ...] = ()
    epochs: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    """Means and deviations are over these."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise UserError(f"grid.{field.name} holds {twice[0]:g} more than once")

    def runs(self, config: FinetuneConfig) -> list[list[FinetuneConfig]]:
        """The configuration of every run, with a folder of its own; by setting, then by seed.

        Raises `UserError` for values that make no sense.
        """
        axes = [getattr(self, name) or (getattr(config, name),) for name in Setting._fields]
        found = []
        for values in itertools.product(*axes):
            setting = Setting(*map(float, values))
            found.append(
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
        return found
