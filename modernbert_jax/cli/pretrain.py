"""The command `pretrain`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from . import devices as device_limits
from . import output as printing
from .dry_run import DryRun
from .launch import Launch
from .options import Flat

if TYPE_CHECKING:
    from modernbert_jax.train.pretrain.config import PretrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain a model.

    Interrupt it at any time, even with `kill -9`; the same command in the same folder resumes. Any
    field of CONFIG can be changed by an option of its name.
    """

    dry: Flat[DryRun] = dataclasses.field(default_factory=DryRun)
    plot: Path | None = None
    """PNG file that --dry-run draws; an existing one is replaced. None is plan.png in the run's
    folder."""
    profile_steps: str = ""
    """Steps to profile, as FIRST:LAST, into profile/ in the run's folder."""
    launch: tyro.conf.OmitArgPrefixes[Launch] = dataclasses.field(default_factory=Launch)

    def run(self, config: "PretrainConfig") -> None:
        """Train, or print the dry run."""
        if self.dry.dry_run:
            self._plan(config)
            return
        self.launch.join(device_limits.for_pretraining(config))

        import jax

        from modernbert_jax.train.engine.profile import Profiler
        from modernbert_jax.train.pretrain.run import pretrain

        profiled = Profiler.parse(self.profile_steps) if self.profile_steps else None
        with printing.attention_choices():
            finished = pretrain(config, profiled)
        if jax.process_index() == 0:
            if finished:
                printing.print_finished(config.output)
            else:
                printing.print_stopped(config.output, "pretrain")

    def _plan(self, config: "PretrainConfig") -> None:
        from modernbert_jax.io import outputs
        from modernbert_jax.train.engine.run_folder import PLAN
        from modernbert_jax.train.pretrain import dry_run

        picture = self.plot or Path(config.output) / PLAN
        outputs.check_file(picture, replaces=".png")
        machine = self.dry.machine()
        facts = dry_run.plan(config, machine)
        dry_run.draw(config, picture)
        if self.dry.json:
            printing.print_json(facts | {"plot": str(picture)})
        else:
            print(f"{dry_run.text(config, machine, facts)}\nschedule drawn in {picture}")
