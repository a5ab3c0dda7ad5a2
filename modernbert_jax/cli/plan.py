"""The command `plan`."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Fraction

from . import output as printing

if TYPE_CHECKING:
    from modernbert_jax.train.pretrain.config import PretrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Compile the real training step for a machine that is not attached.

    Shows bytes per device, communication between devices, FLOPs and time, whether it fits, and
    which settings would be better. Each stage takes minutes to compile. The exit code is 1 where a
    stage does not fit.
    """

    topology: str = ""
    """Machine: v5e:16x16, v5p:4x4x8, v5e-256, v5p-128, ... (needs the extra `tpu`), or h100:8,
    h100:4x8 for 4 hosts, a100:8, b200:8, l4:4 (needs the extra `cuda12`)."""
    stage: tuple[str, ...] = ()
    """Names of the stages to compile. Without it: all."""
    mfu: Fraction = 0.4
    """Share of the devices' peak FLOP/s for which times are computed, from 0 to 1."""
    only: Literal["configured", "suggested"] | None = None
    """Compile the configuration as it is, or search for the best one. None does both."""
    json: bool = False
    """Print JSON."""

    def run(self, config: "PretrainConfig") -> int:
        """Compile, and print the facts."""
        if not self.topology:
            raise UserError("plan needs a --topology, such as v5e:16x16, v5p-128 or h100:8")
        from modernbert_jax.train.plan import facts as planner
        from modernbert_jax.train.plan import show, topology

        with topology.absent_devices():
            facts = planner.plan(
                config,
                topology.topology(self.topology),
                stages=self.stage,
                mfu=self.mfu,
                which=self.only or "both",
                say=printing.print_to_stderr,
            )
        printing.print_json(facts) if self.json else show.show(facts)
        return 0 if facts["fits"] else 1
