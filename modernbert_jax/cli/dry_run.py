"""Options of a dry run, for commands that train."""

import dataclasses
from typing import TYPE_CHECKING

from modernbert_jax import ranges
from modernbert_jax.ranges import Count, Fraction

from .options import as_option

if TYPE_CHECKING:
    from modernbert_jax.train.engine.machine import Machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun:
    """Options of a dry run, and the machine for which it estimates hours."""

    dry_run: bool = False
    """Print what the run would do, and how long it would take."""
    json: bool = False
    """Print the dry run as JSON."""
    hardware: str = "h100"
    """Accelerator for which --dry-run estimates hours: h100, a100, v5e, v5p, v6e, ..."""
    devices: Count = 8
    """Number of these accelerators."""
    mfu: Fraction = 0.4
    """Share of their peak FLOP/s that the model uses, from 0 to 1."""

    def __post_init__(self):
        ranges.check(self, "--", as_option)

    def machine(self) -> "Machine":
        """The machine. Raises `UserError` for unknown hardware."""
        from modernbert_jax.train.engine.machine import Machine

        return Machine.named(self.hardware, self.devices, self.mfu)
